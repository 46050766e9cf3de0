/** A process's way onto the bus, from its configuration. */
import { readFileSync } from "node:fs";
import type { Config } from "../runtime/config.ts";
import type { busSettings } from "../runtime/settings.ts";
import type { BusOptions } from "./connect.ts";

/** Connection options for a process of the given name. */
export function busOptions(config: Config<typeof busSettings>, name: string): BusOptions {
  const { NATS_USER: user, NATS_PASSWORD: password, NATS_CREDS: credsFile, NATS_NKEY: nkey } = config;
  const { NATS_TLS_CA: caFile, NATS_TLS_CERT: certFile, NATS_TLS_KEY: keyFile } = config;
  const tls = caFile !== undefined || certFile !== undefined;
  return {
    url: config.NATS_URL.join(","),
    name,
    inboxPrefix: config.NATS_INBOX_PREFIX,
    ...(user !== undefined && { user }),
    ...(password !== undefined && { password }),
    ...(credsFile !== undefined && { credsFile }),
    ...(nkey !== undefined && { nkeySeed: readFileSync(nkey, "utf8").trim() }),
    ...(tls && {
      tls: {
        ...(caFile !== undefined && { caFile }),
        ...(certFile !== undefined && { certFile }),
        ...(keyFile !== undefined && { keyFile }),
      },
    }),
  };
}
