/**
 * Idempotency of calls by the caller's key (OpenWOP, idempotency layer 1), shared by all surfaces.
 *
 * D1 The key is of the authenticated tenant and the operation: a retry over another surface finds the same record.
 * D2 One executes; the others wait for it, or hear `idempotency_in_flight`.
 * D3 The same key with another body is `idempotency_key_mismatch`, whatever the first one came to.
 * D4 What is kept: successes and refusals that trying again cannot change. Never kept: what is wrong with the request or its credential (400,
 *    401, 403), which leaves the key free for a better one, failures that may pass, and refusals that say when to come again.
 * D5 A holder that died leaves a lease that ends; then the record is taken over by compare-and-set.
 * D6 Every execution under a key is given the same id. Who names what it makes by that id, or writes it beside what it did, does it once,
 *    also after D5, and answers as the first one would have.
 * D7 After the retention a key means nothing any more: the next call under it is a new one.
 * D8 A bus that is away when the call has ended does not make it fail: what it came to is kept once the bus is back.
 */
import { createHash } from "node:crypto";
import { BeamlineError, isCode, meaning } from "../../contracts/errors.ts";
import { canonicalJson } from "../../contracts/openwop/json.ts";
import type { Clock } from "../../runtime/clock.ts";
import type { Ids } from "../../runtime/ids.ts";
import { checkNesting, invalid } from "./body.ts";
import type { Answer, Asker } from "./caller.ts";
import type { Records } from "./records.ts";

export interface IdempotencyRecord {
  readonly requestDigest: string;
  /** D6. */
  readonly executionId: string;
  readonly state: "pending" | "completed" | "terminal-failure" | "retryable-failure";
  readonly leaseOwner: string;
  /** Epoch milliseconds. */
  readonly leaseUntil: number;
  /** Epoch milliseconds of the first call under the key. */
  readonly since?: number;
  readonly answer?: Answer;
  readonly error?: {
    readonly code: string;
    readonly message: string;
    readonly details: Readonly<Record<string, unknown>>;
    readonly field?: string;
  };
}

/** One execution of a call (D6). */
export interface Execution {
  /** Of a call without a key it is nobody else's. */
  readonly id: string;
  readonly keyed: boolean;
  /** Whether an execution under the same key began before, and nobody knows how far it came. */
  readonly again: boolean;
}

export const MAX_KEY = 255;
export const REPLAY_HEADER = "openwop-Idempotent-Replay";

const LEASE_MS = 10_000;
const WAIT_MS = 12_000;
const POLL_MS = 20;
/** D8. Until the lease has ended anyway. */
const AWAY = { retryForMs: LEASE_MS } as const;
/** What is left of the caller's time when waiting for another call is given up: enough for the answer to arrive. */
const ANSWER_MS = 500;
/** HTTP statuses of D4. */
const NEVER_KEPT = new Set([400, 401, 403, 413]);

export class Idempotency {
  readonly #records: Records<IdempotencyRecord>;
  readonly #worker: string;
  readonly #clock: Clock;
  readonly #ids: Ids;
  readonly #retentionMs: number;

  /** @param retentionMs how long a key is remembered, at most as long as its bucket keeps it */
  constructor(records: Records<IdempotencyRecord>, worker: string, clock: Clock, ids: Ids, retentionMs: number) {
    this.#records = records;
    this.#worker = worker;
    this.#clock = clock;
    this.#ids = ids;
    this.#retentionMs = retentionMs;
  }

  /** Runs an operation once per key. Without a key it just runs it. */
  async once(
    asker: Asker,
    operation: string,
    body: unknown,
    run: (execution: Execution) => Promise<Answer>,
  ): Promise<Answer> {
    const { idempotencyKey, tenant } = asker;
    if (idempotencyKey === undefined) return run({ id: this.#ids.v7(), keyed: false, again: false });
    if (idempotencyKey.length > MAX_KEY) throw invalid("Idempotency-Key", `is longer than ${MAX_KEY} characters`);
    checkNesting(body);
    const key = [tenant, operation, createHash("sha256").update(idempotencyKey).digest("base64url")];
    const requestDigest = createHash("sha256")
      .update(canonicalJson(body ?? null))
      .digest("base64url");
    const left = (asker.deadline ?? Infinity) - this.#clock.now() - ANSWER_MS;
    const deadline = this.#clock.monotonic() + Math.min(WAIT_MS, Math.max(0, left));
    for (;;) {
      const kept = await this.#records.get(...key);
      const forgotten =
        kept !== undefined &&
        kept.value.state !== "pending" &&
        (kept.value.since ?? Infinity) + this.#retentionMs <= this.#clock.now();
      if (
        kept === undefined ||
        forgotten ||
        kept.value.state === "retryable-failure" ||
        (kept.value.state === "pending" && kept.value.leaseUntil <= this.#clock.now())
      ) {
        if (kept !== undefined && !forgotten && kept.value.requestDigest !== requestDigest) throw mismatch();
        const again = kept !== undefined && !forgotten;
        const executionId = again ? kept.value.executionId : this.#ids.v7();
        const revision = await this.#records.swap(key, this.#pending(requestDigest, executionId), kept?.revision ?? 0);
        if (revision === undefined) continue;
        return this.#run(key, requestDigest, { id: executionId, keyed: true, again }, revision, run);
      }
      if (kept.value.requestDigest !== requestDigest) throw mismatch();
      if (kept.value.state !== "pending") return replay(kept.value);
      if (this.#clock.monotonic() > deadline) {
        throw new BeamlineError("idempotency_in_flight", "a call with this Idempotency-Key is still running", {
          retryAfterSeconds: 1,
        });
      }
      await this.#clock.sleep(POLL_MS);
    }
  }

  async #run(
    key: readonly string[],
    requestDigest: string,
    execution: Execution,
    revision: number,
    run: (execution: Execution) => Promise<Answer>,
  ): Promise<Answer> {
    const { id: executionId } = execution;
    const done = { requestDigest, executionId, leaseOwner: this.#worker, leaseUntil: 0, since: this.#clock.now() };
    try {
      const answer = await run(execution);
      await this.#records.swap(key, { ...done, state: "completed", answer }, revision, AWAY);
      return { ...answer, headers: { ...answer.headers, [REPLAY_HEADER]: "false" } };
    } catch (thrown) {
      const error = BeamlineError.from(thrown);
      const { code, message, details, field } = error;
      const { http, outcome } = meaning(code);
      const passes = outcome === "retry" || code === "cancelled" || error.retryAfterSeconds !== undefined;
      const kept = http < 500 && http !== 429 && !passes && !NEVER_KEPT.has(http);
      const record: IdempotencyRecord = kept
        ? {
            ...done,
            state: "terminal-failure",
            error: { code, message, details, ...(field !== undefined && { field }) },
          }
        : { ...done, state: "retryable-failure" };
      const mine = (await this.#records.swap(key, record, revision, AWAY)) !== undefined;
      // Whoever has taken over meanwhile has a record of their own.
      if (mine && NEVER_KEPT.has(http)) await this.#records.remove(...key);
      throw error;
    }
  }

  #pending(requestDigest: string, executionId: string): IdempotencyRecord {
    return {
      requestDigest,
      executionId,
      state: "pending",
      leaseOwner: this.#worker,
      leaseUntil: this.#clock.now() + LEASE_MS,
    };
  }
}

const replayed = new WeakSet<BeamlineError>();

/** Whether a refusal is the one that was kept, and not a new one. */
export function isReplayed(error: BeamlineError): boolean {
  return replayed.has(error);
}

function replay({ answer, error }: IdempotencyRecord): Answer {
  if (answer !== undefined) return { ...answer, headers: { ...answer.headers, [REPLAY_HEADER]: "true" } };
  const { code, message, details, field } = error ?? { code: "internal_error", message: "internal error", details: {} };
  const refusal = new BeamlineError(isCode(code) ? code : "internal_error", message, {
    details,
    ...(field !== undefined && { field }),
  });
  replayed.add(refusal);
  throw refusal;
}

function mismatch(): BeamlineError {
  return new BeamlineError("idempotency_key_mismatch", "the Idempotency-Key was used for another request");
}
