/** Server-sent events of a run (OpenWOP, SSE framing). */
import type { ServerResponse } from "node:http";
import type { RunEvent } from "../../contracts/openwop/log.ts";
import { buffered } from "./events.ts";

const KEEPALIVE_MS = 15_000;
/** A client that has read nothing for this long is let go: it would have its place here for ever. Longer than the pause between keepalives. */
const STUCK_MS = 120_000;

/** One event as a frame. */
export function frameOf(event: RunEvent): string {
  return `id: ${event.sequence}\nevent: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`;
}

function batchOf(events: readonly RunEvent[]): string {
  return `id: ${events.at(-1)?.sequence ?? 0}\nevent: batch\ndata: ${JSON.stringify(events)}\n\n`;
}

/**
 * Writes events until they end or the client leaves, no faster than it reads; one that reads nothing for `stuckMs` is let go, and comes back
 * with its cursor if it lives. What cannot be served at all was refused before the headers went out.
 */
export async function sendEvents(
  response: ServerResponse,
  events: AsyncIterable<RunEvent>,
  bufferMs: number,
  signal: AbortSignal,
  stuckMs = STUCK_MS,
): Promise<void> {
  const keepalive = setInterval(() => response.write(":keepalive\n\n"), KEEPALIVE_MS);
  // Of the socket: it knows of a write that goes on slowly.
  response.setTimeout(stuckMs, () => response.destroy());
  const send = async (text: string): Promise<void> => {
    if (!response.write(text)) await drained(response, signal);
  };
  try {
    if (bufferMs === 0) for await (const event of events) await send(frameOf(event));
    else for await (const batch of buffered(events, bufferMs)) await send(batchOf(batch));
  } finally {
    clearInterval(keepalive);
    response.end();
  }
}

function drained(response: ServerResponse, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve();
    const go = (): void => {
      response.removeListener("drain", go);
      signal.removeEventListener("abort", go);
      resolve();
    };
    response.once("drain", go);
    signal.addEventListener("abort", go, { once: true });
  });
}

/** The events with the first one asked for: what is refused, is refused here. */
export async function primed<T>(events: AsyncGenerator<T>): Promise<AsyncIterable<T>> {
  const first = await events.next();
  return {
    async *[Symbol.asyncIterator]() {
      try {
        if (first.done === true) return;
        yield first.value;
        yield* events;
      } finally {
        await events.return(undefined);
      }
    },
  };
}
