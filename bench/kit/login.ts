/** How a peer finds its server: from the environment `Stack.login` and `loginOf` give it. */
import { Bus } from "../../bus/connect.ts";
import { busOptions } from "../../bus/options.ts";
import { loadConfig } from "../../runtime/config.ts";
import { busSettings } from "../../runtime/settings.ts";
import { setting } from "./peer.ts";

/** Our own connection. */
export function connectOurs(name: string): Promise<Bus> {
  return Bus.connect(busOptions(loadConfig(busSettings, process.env), name));
}

/** Options of the client library for a connection as anybody would open it. */
export function bareOptions(name: string): {
  servers: string;
  user: string;
  pass: string;
  inboxPrefix: string;
  name: string;
} {
  return {
    servers: setting("NATS_URL"),
    user: setting("NATS_USER"),
    pass: setting("NATS_PASSWORD"),
    inboxPrefix: setting("NATS_INBOX_PREFIX"),
    name,
  };
}
