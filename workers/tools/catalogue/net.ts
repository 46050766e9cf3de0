/** The network (aiOS tools, namespace net). Whatever connects goes through the guarded way out. */
import { lookup } from "node:dns/promises";
import { readFile } from "node:fs/promises";
import { connect } from "node:net";
import { networkInterfaces } from "node:os";
import { BeamlineError } from "../../../contracts/errors.ts";
import { ToolFailure } from "../failure.ts";
import { bool, int, list, num, object, str } from "../schema.ts";
import { tool, type Call, type Namespace } from "../tool.ts";

const host = str("Name or address.", { minLength: 1, maxLength: 253, pattern: "^[A-Za-z0-9_.:%\\[\\]-]+$" });
const CONNECT_MS = 5_000;
const GET_MS = 15_000;
export const CUT_MARK = "\n... [truncated]";
/** Largest body as it is written in an output, bytes of JSON: less than the default limit of outputs. */
export const MAX_WRITTEN = 1_400_000;
/** Bytes kept of a body. */
export const MAX_BODY = 1024 * 1024;

export const net: Namespace<"net"> = {
  "net.interfaces": tool({
    about: "Network interfaces with their first address.",
    input: object(),
    output: object({
      interfaces: list(object({ name: str(), ip: str(), mac: str(), status: str("up, down or unknown") })),
    }),
    async run() {
      const interfaces = await Promise.all(
        Object.entries(networkInterfaces()).map(async ([name, addresses = []]) => {
          const first = addresses.find(({ family }) => family === "IPv4") ?? addresses[0];
          const state = (await readFile(`/sys/class/net/${name}/operstate`, "utf8").catch(() => "")).trim();
          // The loopback device has no carrier to speak of; it is up when it has an address.
          const status = state === "unknown" || state === "" ? (first === undefined ? "unknown" : "up") : state;
          return { name, ip: first?.address ?? "", mac: first?.mac ?? "", status };
        }),
      );
      return { interfaces };
    },
  }),

  "net.ping": tool<{ host: string; count: number }>({
    about: "Pings a host and gives the average time.",
    input: object({ host, "count?": int("", { default: 3, minimum: 0, maximum: 20 }) }),
    output: object({ success: bool(), latency_ms: num("0 when nothing came back.") }),
    async run({ host, count }, call) {
      let address: string;
      try {
        address = (await call.host.egress.checkAddress(`${bracketed(host)}:1`)).address;
      } catch (thrown) {
        if (thrown instanceof BeamlineError && thrown.code === "unavailable") return { success: false, latency_ms: 0 };
        throw thrown;
      }
      const times = count === 0 ? 3 : count;
      const { code, stdout } = await call.host.programs.run(
        "ping",
        ["-n", "-q", "-c", String(times), "-W", "5", "-w", "25", address],
        { signal: call.signal },
      );
      const average = /= [\d.]+\/([\d.]+)\//.exec(stdout)?.[1];
      return { success: code === 0, latency_ms: code === 0 && average !== undefined ? Number(average) : 0 };
    },
  }),

  "net.dns": tool<{ hostname: string }>({
    about: "Addresses of a name.",
    input: object({ hostname: host }),
    aliases: { host: "hostname" },
    output: object({ addresses: list(str()) }),
    async run({ hostname }) {
      const found = await lookup(hostname, { all: true, verbatim: true }).catch(() => []);
      if (found.length === 0) throw new ToolFailure(`net.dns: ${hostname} has no address`);
      return { addresses: [...new Set(found.map(({ address }) => address))] };
    },
  }),

  "net.http_get": tool<{ url: string }>({
    about: "Gets a URL, following redirects. status is 0 when it cannot be reached.",
    input: object({ url: str("http or https", { minLength: 1, maxLength: 8_192 }) }),
    output: object({ status: int(), body: str(`At most 1 MiB; then it ends with ${JSON.stringify(CUT_MARK)}.`) }),
    async run({ url }, call) {
      try {
        const { status, body, truncated } = await call.host.egress.fetch(url, {
          maxRedirects: 5,
          timeoutMs: GET_MS,
          signal: call.signal,
          maxBytes: MAX_BODY,
        });
        return { status, body: textOfBody(body, truncated) };
      } catch (thrown) {
        if (unreachable(thrown, call)) return { status: 0, body: "" };
        throw thrown;
      }
    },
  }),

  "net.port_scan": tool<{ host: string; port: number }>({
    about: "Whether one TCP port takes a connection.",
    input: object({ host, port: int("", { minimum: 1, maximum: 65_535 }) }),
    output: object({ open: bool() }),
    async run({ host, port }, call) {
      try {
        const { address } = await call.host.egress.checkAddress(`${bracketed(host)}:${port}`);
        return { open: await connects(address, port, call.signal) };
      } catch (thrown) {
        if (thrown instanceof BeamlineError && thrown.code === "unavailable") return { open: false };
        throw thrown;
      }
    },
  }),
};

/** Whether a connection is taken within five seconds. */
export function connects(address: string, port: number, signal: AbortSignal): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ host: address, port, signal, timeout: CONNECT_MS });
    const end = (open: boolean): void => {
      socket.destroy();
      resolve(open);
    };
    socket.once("connect", () => end(true));
    socket.once("timeout", () => end(false));
    socket.once("error", () => end(false));
  });
}

/** Whether a destination did not answer, as against one that may not be asked. */
export function unreachable(thrown: unknown, call: Call): boolean {
  if (call.signal.aborted || !(thrown instanceof BeamlineError)) return false;
  return thrown.code === "unavailable" || thrown.code === "deadline_exceeded";
}

/** A body as text, with a mark when it was cut: at 1 MiB, and what is no text where it grows too large by being written as JSON. */
export function textOfBody(body: Uint8Array, truncated: boolean): string {
  return fitting(Buffer.from(body).toString("utf8") + (truncated ? CUT_MARK : ""), MAX_WRITTEN);
}

/** The text, or its beginning with the mark, so that it takes no more than so many bytes as JSON. */
export function fitting(text: string, maxBytes: number): string {
  let kept = text;
  for (let size = bytesOf(text); size > maxBytes && kept !== ""; size = bytesOf(kept + CUT_MARK))
    kept = kept.slice(0, Math.floor((kept.length * Math.max(0, maxBytes - 64)) / size));
  return kept === text ? text : kept + CUT_MARK;
}

/** Size of a value as JSON, bytes. */
export function bytesOf(value: unknown): number {
  return Buffer.byteLength(JSON.stringify(value));
}

function bracketed(host: string): string {
  return host.includes(":") && !host.startsWith("[") ? `[${host}]` : host;
}
