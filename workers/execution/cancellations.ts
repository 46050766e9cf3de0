/**
 * Assignments someone wants stopped, from the bucket `exec_cancelled`, held in memory: asking costs nothing, and a running job hears of it at once.
 *
 * X1 What was cancelled before this process began is known before the first job is taken.
 * X2 A lost connection delays news, it loses none.
 */
import type { Bus } from "../../bus/connect.ts";
import { keyOf } from "../../bus/keys.ts";
import { Bucket, jsonCodec } from "../../bus/keyvalue.ts";
import { watchInto } from "../../bus/watch.ts";
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
    this.#reasons.set(key, reason);
    for (const controller of this.#watched.get(key) ?? []) controller.abort(cancelled(reason));
  }

  /** The bucket let go of the key. */
  forget(key: string): void {
    this.#reasons.delete(key);
  }
}

function cancelled(reason: string): BeamlineError {
  return new BeamlineError("cancelled", reason === "" ? "cancelled on request" : `cancelled on request: ${reason}`);
}

/** Reads the bucket into a book and follows it. Resolves when what is there has been read (X1). */
export async function followCancellations(bus: Bus, book: CancelBook): Promise<{ stop(): void }> {
  const watch = watchInto(new Bucket(bus, buckets.execCancelled, jsonCodec<{ readonly reason?: string }>()), {
    onChange: (key, entry) => (entry === undefined ? book.forget(key) : book.note(key, entry.value.reason ?? "")),
  });
  await watch.ready;
  return watch;
}
