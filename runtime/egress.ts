/**
 * HTTP and gRPC leaving the product for a place a caller named: webhooks, network tools, custom handlers.
 *
 * E1 A name is resolved once per connection, every address it has is judged, and the connection goes to exactly the address judged.
 * E2 A redirect is a new destination: it is not followed unless asked, and then judged like the first.
 * E3 No answer is larger than its limit, none takes longer than its deadline.
 */
import { lookup } from "node:dns/promises";
import { isIP } from "node:net";
import { Agent, buildConnector, request, type Dispatcher } from "undici";
import { BeamlineError, invalidArgument } from "../contracts/errors.ts";
import { isAllowed, parseAllowed, refusedBecause, type Allowed } from "./egress.address.ts";

export interface EgressOptions {
  /** Exceptions to the rule: `host`, `host:port`, `10.0.0.0/8`, `[::1]:8080`. None by default. */
  readonly allow?: readonly string[];
  /** Addresses of a name. Default: the system's resolver. */
  readonly resolve?: (host: string) => Promise<readonly string[]>;
}

/** Where a connection may go: the name asked for and the address that was judged. */
export interface Destination {
  readonly host: string;
  readonly address: string;
  readonly port: number;
}

export interface EgressRequest {
  /** Default GET. */
  readonly method?: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string | Uint8Array;
  /** For everything, redirects and body included, milliseconds. Default 30 000. */
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal | undefined;
  /** Redirects followed; default 0: the redirect itself is the answer. */
  readonly maxRedirects?: number;
  /** Body bytes kept. Default 1 MiB. */
  readonly maxBytes?: number;
  /** What to do beyond `maxBytes`: `cut` keeps the beginning (default), `fail` throws `message_too_large`. */
  readonly overflow?: "cut" | "fail";
}

export interface EgressResponse {
  readonly status: number;
  /** Names in lower case; several values joined by `, `. */
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Buffer;
  /** Whether the body was cut at `maxBytes`. */
  readonly truncated: boolean;
  /** URL that answered, after redirects. */
  readonly url: string;
}

export interface EgressStream extends Omit<EgressResponse, "body" | "truncated"> {
  /** Chunks as they come; ends with `message_too_large` beyond `maxBytes`. Read it to the end or leave the loop. */
  readonly chunks: AsyncIterable<Uint8Array>;
}

export interface Egress {
  /**
   * One request. Throws `invalid_argument` (not an http URL, or with a password in it), `permission_denied` (an address that may not be
   * dialled), `unavailable` (no such name, no connection), `deadline_exceeded`, `cancelled`, `message_too_large`.
   */
  fetch(url: string, options?: EgressRequest): Promise<EgressResponse>;
  /** The same with the body as it comes. */
  stream(url: string, options?: EgressRequest): Promise<EgressStream>;
  /**
   * Judges `host:port`, also written as `dns:///host:port`, `http://host:port` or `ipv4:1.2.3.4:port` like gRPC targets are. Dial the
   * `address` it gives, not the name again. Throws as `fetch`.
   */
  checkAddress(target: string): Promise<Destination>;
  close(): Promise<void>;
}

const REDIRECTS = new Set([301, 302, 303, 307, 308]);
const MIB = 1024 * 1024;

/** Opens the way out. Close it to end kept connections. */
export function createEgress(options: EgressOptions = {}): Egress {
  const allowed = parseAllowed(options.allow ?? []);
  const resolve = options.resolve ?? resolveSystem;
  const judgeHost = (host: string, port: number) => judge(host, port, allowed, resolve);
  const agent = new Agent({ connect: pinned(judgeHost), keepAliveTimeout: 4_000, connections: 64 });

  async function open(
    url: string,
    asked: EgressRequest,
    signal: AbortSignal,
  ): Promise<{ answer: Dispatcher.ResponseData; url: string }> {
    let target = httpUrl(url);
    let { method = "GET", body, headers = {} } = asked;
    for (let hops = 0; ; hops++) {
      // Judged here too: a kept connection is not dialled again, and an address is not looked up.
      await judgeHost(hostOf(target), portOf(target));
      const answer = await request(target, {
        method: method.toUpperCase(),
        headers,
        body: body ?? null,
        dispatcher: agent,
        signal,
      });
      const location = answer.headers["location"];
      if (!REDIRECTS.has(answer.statusCode) || typeof location !== "string" || hops >= (asked.maxRedirects ?? 0)) {
        return { answer, url: target.href };
      }
      await answer.body.dump({ limit: 65_536 }).catch(() => undefined);
      const next = httpUrl(URL.parse(location, target.href)?.href ?? location);
      if (next.origin !== target.origin) headers = withoutSecrets(headers);
      if (answer.statusCode === 303 || (method.toUpperCase() === "POST" && answer.statusCode < 303)) {
        method = "GET";
        body = undefined;
        headers = withoutBody(headers);
      }
      target = next;
    }
  }

  async function stream(url: string, asked: EgressRequest = {}): Promise<EgressStream> {
    const timeout = AbortSignal.timeout(asked.timeoutMs ?? 30_000);
    const signal = asked.signal === undefined ? timeout : AbortSignal.any([timeout, asked.signal]);
    try {
      signal.throwIfAborted();
      const { answer, url: finalUrl } = await open(url, asked, signal);
      const limit = asked.maxBytes ?? MIB;
      return {
        status: answer.statusCode,
        headers: flat(answer.headers),
        url: finalUrl,
        chunks: bounded(answer.body, limit, signal, url),
      };
    } catch (thrown) {
      throw translated(thrown, signal, url);
    }
  }

  return {
    stream,
    async fetch(url, asked = {}) {
      const { chunks, ...head } = await stream(url, asked);
      const kept: Uint8Array[] = [];
      try {
        for await (const chunk of chunks) kept.push(chunk);
      } catch (thrown) {
        if (!(thrown instanceof TooLarge) || asked.overflow === "fail") throw thrown;
        kept.push(thrown.fits);
        return { ...head, body: Buffer.concat(kept), truncated: true };
      }
      return { ...head, body: Buffer.concat(kept), truncated: false };
    },
    async checkAddress(target) {
      const url = URL.parse(`tcp://${target.trim().replace(/^(?:https?:\/\/|dns:(?:\/\/[^/]*\/)?|ipv4:|ipv6:)/i, "")}`);
      const host = url === null ? "" : hostOf(url);
      const port = Number(url?.port);
      if (
        url === null ||
        host === "" ||
        !(port > 0) ||
        url.username !== "" ||
        (url.pathname !== "" && url.pathname !== "/")
      ) {
        throw invalidArgument("address", `${target} is not host:port`);
      }
      // Only web URLs are normalised, and only those know that 0x7f.1 and 2130706433 are 127.0.0.1.
      return judgeHost(hostOf(httpUrl(`http://${url.host}`)), port);
    },
    close: () => agent.destroy(),
  };
}

/** What lies beyond the limit of a body. */
class TooLarge extends BeamlineError {
  readonly fits: Uint8Array;
  constructor(url: string, limit: number, fits: Uint8Array) {
    super("message_too_large", `the answer of ${origin(url)} is larger than ${limit} bytes`);
    this.fits = fits;
  }
}

async function* bounded(
  body: AsyncIterable<Uint8Array>,
  limit: number,
  signal: AbortSignal,
  url: string,
): AsyncGenerator<Uint8Array> {
  let size = 0;
  try {
    for await (const chunk of body) {
      if (size + chunk.length > limit) throw new TooLarge(url, limit, chunk.subarray(0, limit - size));
      size += chunk.length;
      yield chunk;
    }
  } catch (thrown) {
    throw translated(thrown, signal, url);
  }
}

/** Connects to the judged address under the name asked for, so that TLS still checks the name. */
function pinned(judgeHost: (host: string, port: number) => Promise<Destination>): buildConnector.connector {
  const connect = buildConnector({ timeout: 10_000 });
  return (options, callback) => {
    const host = bare(options.hostname);
    const dial = async (): Promise<void> => {
      const { address } = await judgeHost(host, Number(options.port) || (options.protocol === "https:" ? 443 : 80));
      const servername = isIP(host) === 0 ? { servername: options.servername ?? host } : {};
      connect({ ...options, ...servername, hostname: address }, callback);
    };
    dial().catch((error: unknown) => callback(BeamlineError.from(error), null)); // oxlint-disable-line promise/no-callback-in-promise
  };
}

/** E1. One refused address refuses the name: it must not matter which of them a resolver puts first. */
async function judge(
  host: string,
  port: number,
  allowed: readonly Allowed[],
  resolve: (host: string) => Promise<readonly string[]>,
): Promise<Destination> {
  const addresses = isIP(host) === 0 ? await resolve(host) : [host];
  const [first] = addresses;
  if (first === undefined) throw new BeamlineError("unavailable", `host ${host} has no address`);
  for (const address of addresses) {
    const reason = refusedBecause(address);
    if (reason === undefined || isAllowed(allowed, host, address, port)) continue;
    throw new BeamlineError("permission_denied", `host ${host} may not be reached: ${address} is ${reason}`, {
      field: "url",
      details: { host, address, reason },
    });
  }
  return { host, address: first, port };
}

async function resolveSystem(host: string): Promise<readonly string[]> {
  try {
    return (await lookup(host, { all: true, verbatim: true })).map(({ address }) => address);
  } catch (cause) {
    throw new BeamlineError("unavailable", `host ${host} cannot be resolved`, { cause });
  }
}

function httpUrl(text: string): URL {
  const url = URL.parse(text);
  if (url === null || (url.protocol !== "http:" && url.protocol !== "https:"))
    throw invalidArgument("url", "must be an http or https URL");
  if (url.username !== "" || url.password !== "") throw invalidArgument("url", "must not carry credentials");
  return url;
}

function hostOf(url: URL): string {
  return bare(url.hostname);
}

function bare(host: string): string {
  return host.startsWith("[") ? host.slice(1, -1) : host;
}

function portOf(url: URL): number {
  return url.port === "" ? (url.protocol === "https:" ? 443 : 80) : Number(url.port);
}

/** What a host must not be told that its neighbour was told. */
function withoutSecrets(headers: Readonly<Record<string, string>>): Record<string, string> {
  return without(headers, /^(authorization|cookie|proxy-authorization|host|x-api-key|.*(secret|token|signature).*)$/i);
}

function withoutBody(headers: Readonly<Record<string, string>>): Record<string, string> {
  return without(headers, /^content-/i);
}

function without(headers: Readonly<Record<string, string>>, names: RegExp): Record<string, string> {
  return Object.fromEntries(Object.entries(headers).filter(([name]) => !names.test(name)));
}

function flat(headers: Readonly<Record<string, string | string[] | undefined>>): Record<string, string> {
  return Object.fromEntries(
    Object.entries(headers).flatMap(([name, value]) =>
      value === undefined ? [] : [[name.toLowerCase(), Array.isArray(value) ? value.join(", ") : value]],
    ),
  );
}

function translated(thrown: unknown, signal: AbortSignal, url: string): BeamlineError {
  if (thrown instanceof BeamlineError) return thrown;
  if (signal.aborted) return BeamlineError.from(signal.reason);
  const cause = thrown instanceof Error ? thrown : undefined;
  if (cause?.cause instanceof BeamlineError) return cause.cause;
  const code = cause !== undefined && "code" in cause ? String(cause.code) : "";
  if (code === "UND_ERR_INVALID_ARG")
    return new BeamlineError("invalid_argument", `the request to ${origin(url)} is not valid: ${cause?.message}`);
  const reason = cause?.message.split("\n")[0] ?? code;
  return new BeamlineError("unavailable", `${origin(url)} cannot be reached: ${reason === "" ? code : reason}`, {
    cause: thrown,
  });
}

/** A URL without what may be secret in it. */
function origin(url: string): string {
  return URL.parse(url)?.origin ?? "the URL";
}
