/**
 * Assignments someone wants stopped, from the bucket `exec_cancelled`, held in memory: asking costs nothing, and a running job hears of it at once.
 *
 * X1 What was cancelled before this process began is known before the first job is taken.
 * X2 A lost connection delays news, it loses none.
 */
import { asking } from "../../bus/apierror.ts";
import type { Bus } from "../../bus/connect.ts";
import { keyOf, partsOf } from "../../bus/keys.ts";
import { BeamlineError } from "../../contracts/errors.ts";
import { buckets } from "../../contracts/streams.ts";

/** A cancellation's own view of one assignment. */
export interface CancelWatch {
  /** Aborts with `cancelled` and the reason. */
  readonly signal: AbortSignal;
  stop(): void;
}

export interface Cancellations {
  watch(tenant: string, assignmentId: string): CancelWatch;
}

/** Keys remembered; the bucket keeps them a day. */
const REMEMBERED = 100_000;

export class CancelBook implements Cancellations {
  readonly #reasons = new Map<string, string>();
  readonly #watched = new Map<string, Set<AbortController>>();

  watch(tenant: string, assignmentId: string): CancelWatch {
    const key = keyOf(tenant, assignmentId);
    const controller = new AbortController();
    const reason = this.#reasons.get(key);
    if (reason !== undefined) {
      controller.abort(cancelled(reason));
      return { signal: controller.signal, stop: () => undefined };
    }
    const watchers = this.#watched.get(key) ?? new Set();
    this.#watched.set(key, watchers.add(controller));
    return {
      signal: controller.signal,
      stop: () => {
        watchers.delete(controller);
        if (watchers.size === 0 && this.#watched.get(key) === watchers) this.#watched.delete(key);
      },
    };
  }

  /** Takes note of a key of the bucket. */
  note(key: string, reason: string): void {
    if (partsOf(key).length !== 2) return;
    this.#reasons.set(key, reason);
    if (this.#reasons.size > REMEMBERED) {
      const [oldest] = this.#reasons.keys();
      if (oldest !== undefined) this.#reasons.delete(oldest);
    }
    for (const controller of this.#watched.get(key) ?? []) controller.abort(cancelled(reason));
  }
}

function cancelled(reason: string): BeamlineError {
  return new BeamlineError("cancelled", reason === "" ? "cancelled on request" : `cancelled on request: ${reason}`);
}

/** Reads the bucket into a book and follows it. Resolves when what is there has been read (X1). Throws `unavailable`. */
export async function followCancellations(bus: Bus, book: CancelBook): Promise<{ stop(): void }> {
  const prefix = `$KV.${buckets.execCancelled.name}.`;
  const { pending, messages } = await asking("watch cancellations", async () => {
    const consumer = await bus.js.consumers.get(`KV_${buckets.execCancelled.name}`, {
      filter_subjects: [`${prefix}>`],
      deliver_policy: "last_per_subject",
    });
    const info = await consumer.info();
    return { pending: info.num_pending, messages: await consumer.consume({ max_messages: 500 }) };
  });
  const { promise: caughtUp, resolve } = Promise.withResolvers<void>();
  if (pending === 0) resolve();
  void (async () => {
    for await (const message of messages) {
      if (message.data.length > 0) book.note(message.subject.slice(prefix.length), reasonIn(message.string()));
      if (message.info.pending === 0) resolve();
    }
    resolve();
  })();
  await caughtUp;
  return { stop: () => messages.stop() };
}

function reasonIn(text: string): string {
  try {
    const parsed: unknown = JSON.parse(text);
    return typeof parsed === "object" && parsed !== null && "reason" in parsed && typeof parsed.reason === "string"
      ? parsed.reason
      : "";
  } catch {
    return "";
  }
}
