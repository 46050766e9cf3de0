/**
 * Marks of jobs whose effect must not happen twice, in the bucket `exec_started`: stored before the effect begins, so that whoever finds
 * one knows that the effect may have happened.
 */
import type { Bus } from "../../bus/connect.ts";
import { keyOf } from "../../bus/keys.ts";
import { Bucket, jsonCodec } from "../../bus/keyvalue.ts";
import { BeamlineError } from "../../contracts/errors.ts";
import { buckets } from "../../contracts/streams.ts";

/** Who began, and until when it may be at it. */
export interface Mark {
  readonly worker_id: string;
  /** Epoch milliseconds. */
  readonly started_at: number;
  readonly deadline: number;
}

export interface Started {
  /**
   * Sets the mark, durably. Undefined when it was free, else the mark that is there. A bus that is away is waited for, as long as the job may take: a
   * mark that was stored and not known to be would be found the next time, and the job reported as begun. Throws `unavailable`, `deadline_exceeded`.
   */
  begin(tenant: string, assignmentId: string, mark: Mark): Promise<Mark | undefined>;
}

/** A mark that expired meanwhile: long after any deadline. */
const EXPIRED: Mark = { worker_id: "", started_at: 0, deadline: 0 };

export function busStarted(bus: Bus): Started {
  const bucket = new Bucket(bus, buckets.execStarted, jsonCodec<Mark>());
  return {
    async begin(tenant, assignmentId, mark) {
      const key = keyOf(tenant, assignmentId);
      try {
        await bucket.create(key, mark, { retryForMs: Math.max(1, mark.deadline - Date.now()) });
        return undefined;
      } catch (thrown) {
        if (BeamlineError.from(thrown).code !== "already_exists") throw thrown;
      }
      return (await bucket.get(key))?.value ?? EXPIRED;
    },
  };
}
