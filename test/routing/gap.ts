/** A way to the bus that stops, for good, right before a client says something: what was said before goes through, nothing after it. */
import { createServer, connect, type Socket } from "node:net";
import { freePort } from "../../deploy/local/ports.ts";

export interface Gap extends AsyncDisposable {
  readonly url: string;
  /** From now on: nothing from the first message on a subject that starts so. Resolves when it was about to be said. */
  before(subject: string): Promise<void>;
}

/** @param target of the bus, `nats://host:port` */
export async function openGap(target: string): Promise<Gap> {
  const { hostname, port } = new URL(target);
  const sockets = new Set<Socket>();
  let mark: Buffer | undefined;
  let reached = Promise.withResolvers<void>();
  const server = createServer((client) => {
    const upstream = connect(Number(port), hostname);
    for (const one of [client, upstream]) {
      sockets.add(one);
      one.on("error", () => undefined).on("close", () => (client.destroy(), upstream.destroy()));
    }
    upstream.pipe(client);
    let tail = Buffer.alloc(0);
    let shut = false;
    client.on("data", (chunk) => {
      if (shut) return;
      const at = mark === undefined ? -1 : Buffer.concat([tail, chunk]).indexOf(mark);
      if (at === -1) {
        tail = Buffer.concat([tail, chunk]).subarray(-256);
        upstream.write(chunk);
        return;
      }
      shut = true;
      upstream.write(chunk.subarray(0, Math.max(0, at - tail.length)));
      reached.resolve();
    });
  });
  const own = await freePort();
  await new Promise<void>((resolve) => void server.listen(own, "127.0.0.1", resolve));
  return {
    url: `nats://127.0.0.1:${own}`,
    before(subject) {
      reached = Promise.withResolvers();
      mark = Buffer.from(`PUB ${subject}`);
      return reached.promise;
    },
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
