/**
 * Calls that are made again (aiOS tools, 10 error recovery; exactly once).
 *
 * Q1 With an idempotency key: the first call claims the key, later ones get its answer. The same key with other arguments is refused.
 * Q2 A claim whose execution left no start in the log never ran: whoever comes next takes it over. One that was started and never ended is
 *    unknown: an idempotent tool runs again, any other is reported and left alone.
 * Q3 Without a key, a call of an idempotent tool that is word for word the last thing its task did gets that answer, for a short while.
 */
import { createHash } from "node:crypto";
import { keyOf } from "../../bus/keys.ts";
import { BeamlineError } from "../../contracts/errors.ts";
import type { ExecuteRequest } from "../../contracts/gen/aios/tools.ts";
import type { Clock } from "../../runtime/clock.ts";
import type { Bucket } from "./bucket.ts";
import type { Execution, Executions } from "./executions.ts";
import { isObject } from "./journal.ts";
import type { Response } from "./pipeline.ts";

export interface Claim {
  readonly execution_id: string;
  /** Over agent, tool and arguments. */
  readonly call_hash: string;
  /** Epoch milliseconds. */
  readonly claimed_at: number;
}

/** Whether that is a claim as it is stored. */
export function isClaim(value: unknown): value is Claim {
  if (!isObject(value) || typeof value["claimed_at"] !== "number") return false;
  return typeof value["execution_id"] === "string" && typeof value["call_hash"] === "string";
}

export interface Repeat {
  readonly tenant: string;
  readonly key: string | undefined;
  readonly request: ExecuteRequest;
  readonly inputHash: string;
  readonly idempotent: boolean;
  readonly signal: AbortSignal;
}

/** What came of looking: an answer to give again, a refusal, or leave to run, over the revision a claim must name. */
export type Looked = { readonly response: Response } | { readonly refusal: string } | { readonly revision: number };

/** How long a claim without a started execution is left to its owner, milliseconds. */
const CLAIM_GRACE_MS = 15_000;
/** Q3: how long the last answer of a task counts, milliseconds. */
const REPEAT_MS = 120_000;
const LOOK_AGAIN_MS = 50;

export class Claims {
  readonly #bucket: Bucket<Claim>;
  readonly #executions: Executions;
  readonly #clock: Clock;

  constructor(bucket: Bucket<Claim>, executions: Executions, clock: Clock) {
    this.#bucket = bucket;
    this.#executions = executions;
    this.#clock = clock;
  }

  /** Waits for an earlier call that is still running. */
  async look(repeat: Repeat): Promise<Looked> {
    if (repeat.key === undefined) return (await this.#lastOfTask(repeat)) ?? { revision: 0 };
    for (;;) {
      const { value: claim, revision } = await this.#bucket.get(bucketKey(repeat.tenant, repeat.key));
      if (claim === undefined) return { revision };
      if (claim.call_hash !== callHash(repeat)) return { refusal: "the idempotency key was used for another call" };
      const execution = (await this.#executions.find(repeat.tenant, claim.execution_id))?.execution;
      const now = this.#clock.now();
      if (execution === undefined) {
        if (now - claim.claimed_at > CLAIM_GRACE_MS) return { revision };
      } else if (execution.state !== "started" && execution.state !== "unknown") {
        return { response: responseOf(execution) };
      } else if (execution.state === "unknown" || execution.due_at < now) {
        if (repeat.idempotent) return { revision };
        return {
          refusal: `outcome unknown: execution ${execution.execution_id} was started and its worker vanished; it is not run again`,
        };
      }
      await this.#clock.sleep(LOOK_AGAIN_MS, repeat.signal);
    }
  }

  /** Q1. Claims the key for an execution. False when somebody else was faster: look again. */
  async take(repeat: Repeat, executionId: string, revision: number): Promise<boolean> {
    if (repeat.key === undefined) return true;
    const claim = { execution_id: executionId, call_hash: callHash(repeat), claimed_at: this.#clock.now() };
    try {
      await this.#bucket.put(bucketKey(repeat.tenant, repeat.key), claim, revision);
      return true;
    } catch (thrown) {
      if (thrown instanceof BeamlineError && thrown.code === "aborted") return false;
      throw thrown;
    }
  }

  /** Gives a key back whose call was refused before it did anything. */
  async release({ tenant, key }: Repeat, executionId: string): Promise<void> {
    if (key === undefined) return;
    const { value, revision } = await this.#bucket.get(bucketKey(tenant, key));
    if (value?.execution_id === executionId) await this.#bucket.delete(bucketKey(tenant, key), revision);
  }

  async #lastOfTask({ tenant, request, inputHash, idempotent }: Repeat): Promise<Looked | undefined> {
    if (!idempotent || request.task_id === "") return undefined;
    const last = (await this.#executions.lastOfTask(tenant, request.task_id))?.execution;
    const same =
      last?.state === "finished" &&
      last.success === true &&
      last.tool_name === request.tool_name &&
      last.agent_id === request.agent_id &&
      last.input_hash === inputHash &&
      this.#clock.now() - (last.changed_at ?? 0) < REPEAT_MS;
    return same ? { response: responseOf(last) } : undefined;
  }
}

function responseOf(execution: Execution): Response {
  const { success = false, output, error = "", execution_id, duration_ms = 0, backup_id } = execution;
  const lost = success && output === undefined;
  return {
    success,
    output: lost ? '{"repeated":true}' : (output ?? ""),
    error,
    executionId: execution_id,
    durationMs: duration_ms,
    backupId: backup_id,
  };
}

function callHash({ request, inputHash }: Repeat): string {
  return createHash("sha256")
    .update(JSON.stringify([request.agent_id, request.tool_name, inputHash]))
    .digest("hex");
}

function bucketKey(tenant: string, key: string): string {
  return keyOf(tenant, createHash("sha256").update(key).digest("hex"));
}
