/**
 * Marks of jobs whose effect must not happen twice, in the bucket `exec_started`: stored before the effect begins, so that whoever finds
 * one knows that the effect may have happened.
 */
import { asking, apiCode, apiCodeOf } from "../../bus/apierror.ts";
import type { Bus } from "../../bus/connect.ts";
import { keyOf } from "../../bus/keys.ts";
import { publish } from "../../bus/publish.ts";
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
  /** Sets the mark, durably. Undefined when it was free, else the mark that is there. Throws `unavailable`. */
  begin(tenant: string, assignmentId: string, mark: Mark): Promise<Mark | undefined>;
}

export function natsStarted(bus: Bus): Started {
  const stream = `KV_${buckets.execStarted.name}`;
  return {
    async begin(tenant, assignmentId, mark) {
      const subject = `$KV.${buckets.execStarted.name}.${keyOf(tenant, assignmentId)}`;
      try {
        await publish(bus, subject, JSON.stringify(mark), { expectLastSubjectSequence: 0 });
        return undefined;
      } catch (thrown) {
        if (BeamlineError.from(thrown).code !== "aborted") throw thrown;
      }
      return markIn(bus, stream, subject);
    },
  };
}

async function markIn(bus: Bus, stream: string, subject: string): Promise<Mark> {
  const message = await asking("look for a started job", async () => {
    try {
      return await bus.jsm.streams.getMessage(stream, { last_by_subj: subject });
    } catch (thrown) {
      if (apiCodeOf(thrown) === apiCode.messageNotFound) return null;
      throw thrown;
    }
  });
  // A mark that is gone again has expired: long after any deadline.
  return message === null || message.data.length === 0
    ? { worker_id: "", started_at: 0, deadline: 0 }
    : message.json<Mark>();
}
