/** Cancellations, in the bucket `exec_cancelled`: execution workers watch it, deadlines look into it. */
import { asking, apiCode, apiCodeOf } from "../../bus/apierror.ts";
import type { Bus } from "../../bus/connect.ts";
import { keyOf } from "../../bus/keys.ts";
import { publish } from "../../bus/publish.ts";
import { buckets } from "../../contracts/streams.ts";

export interface Cancels {
  /** Durable when it resolves; again is the same. Throws `unavailable`. */
  cancel(tenant: string, assignmentId: string, reason: string): Promise<void>;
  /** The reason, possibly empty, of a cancelled assignment; undefined for others. */
  reasonFor(tenant: string, assignmentId: string): Promise<string | undefined>;
}

export function natsCancels(bus: Bus): Cancels {
  const bucket = buckets.execCancelled.name;
  const subjectOf = (tenant: string, id: string): string => `$KV.${bucket}.${keyOf(tenant, id)}`;
  return {
    async cancel(tenant, assignmentId, reason) {
      await publish(bus, subjectOf(tenant, assignmentId), JSON.stringify({ reason }));
    },
    async reasonFor(tenant, assignmentId) {
      const found = await asking("look for a cancellation", async () => {
        try {
          return await bus.jsm.streams.getMessage(`KV_${bucket}`, { last_by_subj: subjectOf(tenant, assignmentId) });
        } catch (thrown) {
          if (apiCodeOf(thrown) === apiCode.messageNotFound) return null;
          throw thrown;
        }
      });
      if (found === null || found.data.length === 0) return undefined;
      const { reason } = found.json<{ reason?: unknown }>();
      return typeof reason === "string" ? reason : "";
    },
  };
}
