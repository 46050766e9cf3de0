/** A way to the bus that stops, for good, right before a client says something: what was said before goes through, nothing after it. */
import { createServer, connect, type Socket } from "node:net";
import { freePort } from "../../deploy/local/ports.ts";

export interface Gap extends AsyncDisposable {
  readonly url: string;
  /**
   * From now on: nothing from the first message on a subject that starts so, or from the first one that follows a message on `after`. Resolves when it was
   * about to be said.
   */
  before(subject: string, after?: string): Promise<void>;
}

/** @param target of the bus, `nats://host:port` */
export async function openGap(target: string): Promise<Gap> {
  const { hostname, port } = new URL(target);
  const sockets = new Set<Socket>();
  /** What is waited for, one after the other: the last one is not said any more. */
  let marks: Buffer[] = [];
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
      const said = Buffer.concat([tail, chunk]);
      let from = 0;
      for (let [mark] = marks; mark !== undefined; [mark] = marks) {
        const at = said.indexOf(mark, from);
        if (at === -1) break;
        from = at + mark.length;
        marks.shift();
        if (marks.length > 0) continue;
        shut = true;
        upstream.write(chunk.subarray(0, Math.max(0, at - tail.length)));
        return reached.resolve();
      }
      // What was found is not looked at again.
      tail = said.subarray(Math.max(from, said.length - 256));
      upstream.write(chunk);
    });
  });
  const own = await freePort();
  await new Promise<void>((resolve) => void server.listen(own, "127.0.0.1", resolve));
  return {
    url: `nats://127.0.0.1:${own}`,
    before(subject, after) {
      reached = Promise.withResolvers();
      marks = (after === undefined ? [subject] : [after, subject]).map((one) => Buffer.from(`PUB ${one}`));
      return reached.promise;
    },
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
