/** Clients of a stream that do not read it. */
import { createServer, get, type IncomingMessage } from "node:http";
import type { AddressInfo } from "node:net";
import { expect, test } from "vitest";
import { EVENT_SCHEMA_VERSION, type RunEvent } from "../../contracts/openwop/log.ts";
import { sendEvents } from "./sse.ts";

const LARGE = "x".repeat(256 * 1024);

/** Events without end. */
async function* endless(signal: AbortSignal): AsyncGenerator<RunEvent> {
  for (let sequence = 0; !signal.aborted; sequence++)
    yield {
      eventId: String(sequence),
      runId: "r",
      type: "log.appended",
      payload: LARGE,
      timestamp: "2026-01-01T00:00:00.000Z",
      sequence,
      schemaVersion: EVENT_SCHEMA_VERSION,
      engineVersion: "1",
    };
}

test("one that never reads is let go after a while, and nothing piles up for it meanwhile", async () => {
  const ended = Promise.withResolvers<number>();
  const server = createServer((_request, response) => {
    const gone = new AbortController();
    response.once("close", () => gone.abort());
    let most = 0;
    const events = endless(gone.signal);
    const watched = (async function* () {
      for await (const event of events) {
        most = Math.max(most, response.writableLength);
        yield event;
      }
    })();
    sendEvents(response, watched, 0, gone.signal, 300).then(
      () => ended.resolve(most),
      (thrown: unknown) => ended.reject(thrown),
    );
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  try {
    const { port } = server.address() as AddressInfo;
    const answer = await new Promise<IncomingMessage>((resolve, reject) => {
      get({ port, host: "127.0.0.1" }, resolve).once("error", reject);
    });
    answer.once("error", () => undefined); // cut off, as it should be
    expect(await ended.promise).toBeLessThan(4 * LARGE.length);
  } finally {
    server.closeAllConnections();
    server.close();
  }
});
