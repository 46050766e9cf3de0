import { randomInt } from "node:crypto";
import { createServer } from "node:net";

/** Everything local listens here and nowhere else. */
export const LOOPBACK = "127.0.0.1";

/** Can a server listen on this loopback port now? It may be taken a moment later: whoever uses the answer must cope. */
export function isPortFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = createServer();
    probe.once("error", () => resolve(false));
    probe.listen({ port, host: LOOPBACK, exclusive: true }, () => probe.close(() => resolve(true)));
  });
}

/**
 * A free loopback port from 20000 to 31999. That is below the range systems hand out for outgoing connections, so a port stays
 * ours while its server is down for a restart: no client's socket can be given it meanwhile.
 */
export async function freePort(): Promise<number> {
  for (let attempt = 0; attempt < 200; attempt++) {
    const port = randomInt(20_000, 32_000);
    if (await isPortFree(port)) return port;
  }
  throw new Error("no free loopback port found between 20000 and 31999");
}
