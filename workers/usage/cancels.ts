/** Cancellations, in the bucket `exec_cancelled`: execution workers watch it, deadlines look into it. */
import type { Bus } from "../../bus/connect.ts";
import { keyOf } from "../../bus/keys.ts";
import { Bucket, jsonCodec } from "../../bus/keyvalue.ts";
import { buckets } from "../../contracts/streams.ts";

export interface Cancels {
  /** Durable when it resolves; again is the same. Throws `unavailable`. */
  cancel(tenant: string, assignmentId: string, reason: string): Promise<void>;
  /** The reason, possibly empty, of a cancelled assignment; undefined for others. */
  reasonFor(tenant: string, assignmentId: string): Promise<string | undefined>;
}

export function busCancels(bus: Bus): Cancels {
  const bucket = new Bucket(bus, buckets.execCancelled, jsonCodec<{ readonly reason: string }>());
  return {
    async cancel(tenant, assignmentId, reason) {
      await bucket.put(keyOf(tenant, assignmentId), { reason });
    },
    reasonFor: async (tenant, assignmentId) => (await bucket.get(keyOf(tenant, assignmentId)))?.value.reason,
  };
}
