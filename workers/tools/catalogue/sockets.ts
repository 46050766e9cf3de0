/** Sockets as the kernel lists them in /proc/net. */
import { readFile } from "node:fs/promises";

export interface SocketFacts {
  /** Tells one socket from another. */
  readonly key: string;
  /** `tcp 0.0.0.0:22 listening`. */
  readonly details: string;
  readonly port: number;
  /** Local address. */
  readonly address: string;
}

const LISTENING = "0A";
const TABLES = ["tcp", "tcp6"];

/** TCP sockets: those that listen, or all of them. */
export async function listeningPorts(onlyListening = true): Promise<SocketFacts[]> {
  const found: SocketFacts[] = [];
  for (const table of TABLES) {
    const text = await readFile(`/proc/net/${table}`, "utf8").catch(() => "");
    for (const line of text.split("\n").slice(1)) {
      const [, local, remote, state] = line.trim().split(/\s+/);
      if (local === undefined || remote === undefined || (onlyListening && state !== LISTENING)) continue;
      const from = endpoint(local);
      const to = state === LISTENING ? "listening" : `to ${endpoint(remote).text}`;
      found.push({
        key: `${table} ${local} ${remote}`,
        details: `${table} ${from.text} ${to}`,
        port: from.port,
        address: from.address,
      });
    }
  }
  return found;
}

/** `0100007F:0016` is 127.0.0.1:22: words of the address in the machine's byte order. */
function endpoint(hex: string): { text: string; address: string; port: number } {
  const [address = "", port = ""] = hex.split(":");
  const bytes = (address.match(/.{8}/g) ?? []).flatMap((word) => (word.match(/../g) ?? []).toReversed());
  const number = Number.parseInt(port, 16);
  const written =
    bytes.length === 4
      ? bytes.map((byte) => Number.parseInt(byte, 16)).join(".")
      : `[${Array.from({ length: 8 }, (_, index) => Number.parseInt(`${bytes[index * 2]}${bytes[index * 2 + 1]}`, 16).toString(16)).join(":")}]`;
  return { text: `${written}:${number}`, address: written, port: number };
}
