import { connect } from "node:net";

/** What a NATS server says of itself, before anyone has to log in. The rest of its INFO line is left alone. */
export interface NatsGreeting {
  readonly serverName: string;
  readonly version: string;
  readonly jetstream: boolean;
  readonly tlsRequired: boolean;
}

/** Someone listens but says nothing: a server that begins with the TLS handshake, or one that hangs. */
export class SilentServer extends Error {}

/**
 * Connects, reads the INFO line and hangs up. Nothing is sent, so no credentials are needed; a server that requires TLS sends this line
 * before it, unless it is configured to shake hands first.
 * Throws when nobody listens or something else than NATS answers, and {@link SilentServer} when nothing is said within `timeoutMs`.
 */
export function natsGreeting(host: string, port: number, timeoutMs = 3_000): Promise<NatsGreeting> {
  return new Promise((resolve, reject) => {
    let heard = "";
    const socket = connect({ host, port });
    const end = (error: Error) => {
      socket.destroy();
      reject(error);
    };
    const fail = (reason: string) => end(new Error(reason));
    socket.setEncoding("utf8");
    socket.setTimeout(timeoutMs, () => end(new SilentServer(`no NATS greeting within ${timeoutMs} ms`)));
    socket.once("error", (error) => fail(error.message));
    socket.once("close", () => fail("the connection closed without a NATS greeting"));
    socket.on("data", (chunk: string) => {
      heard += chunk;
      const lineEnd = heard.indexOf("\r\n");
      if (lineEnd < 0 && heard.length < 64 * 1024) return;
      const greeting = readInfo(heard.slice(0, lineEnd));
      if (greeting === undefined) return fail("what answers there is not a NATS server");
      socket.destroy();
      resolve(greeting);
    });
  });
}

function readInfo(line: string): NatsGreeting | undefined {
  if (!line.startsWith("INFO ")) return undefined;
  try {
    const info: unknown = JSON.parse(line.slice("INFO ".length));
    if (typeof info !== "object" || info === null) return undefined;
    const said = new Map<string, unknown>(Object.entries(info));
    const text = (key: string) => {
      const value = said.get(key);
      return typeof value === "string" ? value : "";
    };
    return {
      serverName: text("server_name"),
      version: text("version"),
      jetstream: said.get("jetstream") === true,
      tlsRequired: said.get("tls_required") === true,
    };
  } catch {
    return undefined;
  }
}
