/**
 * Reading a stream as it grows: what is there, then what comes, in order, each message once.
 *
 * F1 A server that was restarted has forgotten its readers. Reading goes on after the last message that was given: at once when the connection is
 *    back, and where the connection lasted (another server of the cluster went) after two beats that were missed.
 * F2 A reader that may not go on is told: to whoever waits, silence would look like an end, or like nothing new.
 */
import type { JsMsg } from "@nats-io/jetstream";
import { BeamlineError } from "../contracts/errors.ts";
import { asking } from "./apierror.ts";
import type { Bus } from "./connect.ts";

export interface FollowOptions {
  /** Subjects read, wildcards allowed. Default: all. */
  readonly subjects?: readonly string[];
  /** First stream sequence, or the moment of the first message. */
  readonly from: number | Date;
  /** Ends it, as leaving the loop does. */
  readonly signal: AbortSignal;
  /** Messages the server sends ahead. Default 500. */
  readonly window?: number;
  /** How often a server with nothing to say says so, milliseconds. Default 1000. */
  readonly beatMs?: number;
}

/** How long it is tried to go on, and between two tries, milliseconds. */
const AGAIN_FOR_MS = 5_000;
const AGAIN_MS = 100;

/** Throws `unavailable` when reading cannot begin or cannot go on, `not_found` without the stream. */
export async function* followStream(
  bus: Bus,
  stream: string,
  { subjects, from, signal, window = 500, beatMs = 1_000 }: FollowOptions,
): AsyncGenerator<JsMsg> {
  const open = (next: number | Date) =>
    asking(`follow stream ${stream}`, async () => {
      const consumer = await bus.js.consumers.get(stream, {
        ...(subjects !== undefined && { filter_subjects: [...subjects] }),
        ...(next instanceof Date
          ? { deliver_policy: "by_start_time", opt_start_time: next.toISOString() }
          : { deliver_policy: "by_start_sequence", opt_start_seq: Math.max(1, next) }),
        inactive_threshold: 60_000,
      });
      return consumer.consume({
        max_messages: window,
        expires: 10 * beatMs,
        idle_heartbeat: beatMs,
        abort_on_missing_resource: true,
      });
    });
  let next = from;
  let messages = await open(next);
  for (;;) {
    // Not close(): that waits for a loop over the messages to end, and there is none when the reader left while this began.
    const stop = (): void => messages.stop();
    if (isAborted(signal)) return stop();
    const unwatch = bus.onReconnect(stop);
    signal.addEventListener("abort", stop, { once: true });
    try {
      for await (const message of messages) {
        next = message.seq + 1;
        yield message;
        if (isAborted(signal)) return;
      }
    } catch {
      // The consumer is gone, or its stream: that is said when reading begins again.
    } finally {
      signal.removeEventListener("abort", stop);
      unwatch();
      stop();
    }
    if (isAborted(signal)) return;
    messages = await reopened(bus, () => open(next), signal);
  }
}

/** F1, F2. */
async function reopened<T>(bus: Bus, open: () => Promise<T>, signal: AbortSignal): Promise<T> {
  const last = performance.now() + AGAIN_FOR_MS;
  for (;;) {
    try {
      return await open();
    } catch (thrown) {
      const closed = bus.nc.isClosed() || bus.nc.isDraining();
      const { code } = BeamlineError.from(thrown);
      if (closed || code === "not_found" || signal.aborted || performance.now() > last) throw thrown;
      await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
    }
  }
}

/** A function, because what it says may change while one waits. */
function isAborted(signal: AbortSignal): boolean {
  return signal.aborted;
}
