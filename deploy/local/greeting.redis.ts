import { connect as connectPlain } from "node:net";
import type { Socket } from "node:net";
import { connect as connectTls } from "node:tls";

/** What a Redis server says of itself. */
export interface RedisGreeting {
  readonly version: string;
  readonly pid: number | undefined;
  /** Still reading its files: it answers most commands with LOADING. */
  readonly loading: boolean;
}

/**
 * Logs in as the URL says (`redis://user:password@host:port`, `rediss://` for TLS, `unix:///path`), asks INFO and hangs up.
 * Throws when nobody listens, when the login is missing or refused, when something else than Redis answers, and when the
 * answer takes longer than `timeoutMs`.
 */
export async function redisGreeting(url: string, timeoutMs = 3_000): Promise<RedisGreeting> {
  const { socket, login } = open(new URL(url));
  try {
    const answers = await ask(socket, [...login, ["INFO"]], timeoutMs);
    const info = answers.at(-1) ?? "";
    const refusal = answers.find((answer) => answer.startsWith("-"));
    if (refusal !== undefined) throw new Error(explain(refusal));
    const value = (key: string) => new RegExp(`^${key}:(.*?)\\r?$`, "m").exec(info)?.[1];
    const version = value("redis_version");
    if (version === undefined) throw new Error("what answers there is not a Redis server");
    const pid = Number(value("process_id"));
    return { version, pid: Number.isSafeInteger(pid) ? pid : undefined, loading: value("loading") === "1" };
  } finally {
    socket.destroy();
  }
}

function open(url: URL): { socket: Socket; login: string[][] } {
  const host = url.hostname.replace(/^\[|\]$/g, "") || "127.0.0.1";
  const port = Number(url.port || 6379);
  const password = decodeURIComponent(url.password);
  const user = decodeURIComponent(url.username);
  const login = password === "" ? [] : [user === "" ? ["AUTH", password] : ["AUTH", user, password]];
  if (url.protocol === "unix:") return { socket: connectPlain({ path: decodeURIComponent(url.pathname) }), login };
  if (url.protocol === "rediss:") return { socket: connectTls({ host, port, servername: host }), login };
  return { socket: connectPlain({ host, port }), login };
}

/** Sends the commands in one go and returns one text per answer: an error with its leading `-`, anything else its content. */
function ask(socket: Socket, commands: string[][], timeoutMs: number): Promise<string[]> {
  return new Promise((resolve, reject) => {
    let heard = Buffer.alloc(0);
    const fail = (reason: string) => reject(new Error(reason));
    socket.setTimeout(timeoutMs, () => fail(`no answer within ${timeoutMs} ms`));
    socket.once("error", (error) => fail(error.message));
    socket.once("close", () => fail("the connection closed without an answer"));
    socket.on("data", (chunk: Buffer) => {
      heard = Buffer.concat([heard, chunk]);
      const answers = readAnswers(heard);
      if (answers === undefined) return fail("what answers there is not a Redis server");
      if (answers.length === commands.length) resolve(answers);
    });
    socket.write(commands.map(encode).join(""));
  });
}

function encode(words: string[]): string {
  return `*${words.length}\r\n${words.map((word) => `$${Buffer.byteLength(word)}\r\n${word}\r\n`).join("")}`;
}

/** The complete answers among the bytes heard so far. Undefined when they are no Redis answers. */
function readAnswers(heard: Buffer): string[] | undefined {
  const answers: string[] = [];
  let at = 0;
  for (;;) {
    const end = heard.indexOf("\r\n", at);
    if (end < 0) return answers;
    const line = heard.toString("utf8", at, end);
    if (line.startsWith("+") || line.startsWith("-")) {
      answers.push(line.startsWith("+") ? line.slice(1) : line);
      at = end + 2;
    } else if (/^\$\d+$/.test(line)) {
      const from = end + 2;
      const to = from + Number(line.slice(1));
      if (heard.length < to + 2) return answers;
      answers.push(heard.toString("utf8", from, to));
      at = to + 2;
    } else {
      return undefined;
    }
  }
}

function explain(refusal: string): string {
  if (refusal.startsWith("-NOAUTH"))
    return "it wants a password: write it in the URL, as in redis://:password@host:6379";
  return `it refused: ${refusal.slice(1)}`;
}
