import { randomInt } from "node:crypto";
import { createServer } from "node:net";

/** Everything local listens here and nowhere else. */
export const LOOPBACK = "127.0.0.1";

// R1 Free ports are handed out from a range that systems do not use for outgoing connections, so a port stays ours while its server is
//    down for a restart: no client's socket can be given it meanwhile.
// R2 Each process takes a block of that range for itself, by listening on the block's first port for as long as it lives. Two processes
//    are thus never told the same port, although one listens on it only later.
// R3 Within its block a process goes round: a port is not told again before all others were.
const FIRST = 20_000;
const LAST = 31_999;
const BLOCK = 60;

/** Can a server listen on this loopback port now? It may be taken a moment later: whoever uses the answer must cope. */
export function isPortFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = createServer();
    probe.once("error", () => resolve(false));
    probe.listen({ port, host: LOOPBACK, exclusive: true }, () => probe.close(() => resolve(true)));
  });
}

/** A loopback port on which nothing listens, and which no other process is told meanwhile. Throws when there is none. */
export async function freePort(): Promise<number> {
  blockTaken ??= takeBlock();
  const first = await blockTaken;
  for (let tried = 1; tried < BLOCK; tried++) {
    turn = (turn % (BLOCK - 1)) + 1;
    const port = first + turn;
    if (await isPortFree(port)) return port;
  }
  throw new Error(`all ports from ${first} to ${first + BLOCK - 1} are taken`);
}

let blockTaken: Promise<number> | undefined;
let turn = 0;

async function takeBlock(): Promise<number> {
  const blocks = Math.floor((LAST + 1 - FIRST) / BLOCK);
  const start = randomInt(blocks);
  for (let i = 0; i < blocks; i++) {
    const first = FIRST + ((start + i) % blocks) * BLOCK;
    if (await guard(first)) return first;
  }
  throw new Error(`no free block of ports between ${FIRST} and ${LAST}`);
}

/** Listens, to serve nobody, until the process ends; it does not keep the process alive. False when the port is taken. */
function guard(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer((socket) => socket.destroy());
    server.once("error", () => resolve(false));
    server.listen({ port, host: LOOPBACK, exclusive: true }, () => {
      server.unref();
      resolve(true);
    });
  });
}
