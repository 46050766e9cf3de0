/** A process's way onto the bus, from its configuration. */
import { readFileSync } from "node:fs";
import { credsAuthenticator, nkeyAuthenticator, type Authenticator } from "@nats-io/transport-node";
import { invalidArgument } from "../contracts/errors.ts";
import type { Config } from "../runtime/config.ts";
import type { busSettings } from "../runtime/settings.ts";
import type { BusOptions } from "./connect.ts";

/** Connection options for a process of the given name. Throws `invalid_argument` naming the setting whose file holds no login. */
export function busOptions(config: Config<typeof busSettings>, name: string): BusOptions {
  const { NATS_USER: user, NATS_PASSWORD: password, NATS_CREDS: credsFile, NATS_NKEY: nkey } = config;
  const { NATS_TLS_CA: caFile, NATS_TLS_CERT: certFile, NATS_TLS_KEY: keyFile } = config;
  if (credsFile !== undefined)
    usable("NATS_CREDS", credsFile, "NATS credentials", () => credsAuthenticator(readFileSync(credsFile)));
  const tls = caFile !== undefined || certFile !== undefined;
  return {
    url: config.NATS_URL.join(","),
    name,
    inboxPrefix: config.NATS_INBOX_PREFIX,
    ...(user !== undefined && { user }),
    ...(password !== undefined && { password }),
    ...(credsFile !== undefined && { credsFile }),
    ...(nkey !== undefined && { nkeySeed: seedIn(nkey) }),
    ...(tls && {
      tls: {
        ...(caFile !== undefined && { caFile }),
        ...(certFile !== undefined && { certFile }),
        ...(keyFile !== undefined && { keyFile }),
      },
    }),
  };
}

function seedIn(file: string): string {
  const seed = readFileSync(file, "utf8").trim();
  usable("NATS_NKEY", file, "nkey seed", () => nkeyAuthenticator(new TextEncoder().encode(seed)));
  return seed;
}

/** Signs something: a login that cannot be read would otherwise look like a server that cannot be reached. */
function usable(setting: string, file: string, what: string, make: () => Authenticator): void {
  try {
    make()("nonce");
  } catch {
    throw invalidArgument(setting, `${file} holds no ${what}`);
  }
}
