/**
 * The invocation log: an effect of a node happens once, whatever happens to its worker (OpenWOP, effect identity inside a run).
 *
 * I1 Before the effect its identity is claimed on disk; who finds it claimed waits for the outcome, or reads it.
 * I2 Failures are outcomes too. A retry of the node is a new execution of the same effect only when the failure says that trying again
 *    may help; the claim is then taken over by compare-and-set.
 * I3 A claim whose holder is gone has an unknown outcome: an effect that is idempotent by its key is made again with the same key, any
 *    other one is reported as `effect_outcome_unknown` and not repeated.
 * I4 A bus that goes away meanwhile makes no outcome unknown: what is to be kept is written once it is back, and what was kept read.
 */
import { createHash } from "node:crypto";
import { BeamlineError, isCode, meaning } from "../../../contracts/errors.ts";
import { effectRuns, type RunRecord } from "../../../contracts/openwop/log.ts";
import type { Clock } from "../../../runtime/clock.ts";
import type { EffectOptions } from "./nodetype.ts";
import type { Records } from "../records.ts";

/** What is kept of an effect. */
export interface Invocation {
  readonly state: "claimed" | "done" | "failed";
  readonly worker: string;
  /** Epoch milliseconds: until then the holder may be at it. */
  readonly until: number;
  readonly result?: unknown;
  readonly error?: {
    readonly code: string;
    readonly message: string;
    readonly details?: Readonly<Record<string, unknown>>;
  };
}

/** Recorded outcomes a replay answers with, instead of making effects (OpenWOP, fork and replay). */
export interface Recorded {
  outcome(
    record: RunRecord,
    nodeId: string,
    ordinal: number,
    iteration: number,
    provider: string,
  ): Promise<Invocation | undefined>;
}

/** A claim nobody renews is abandoned after this time. */
const CLAIM_MS = 15_000;
const POLL_MS = 100;
/** I4. How long the bus may be away. */
const AWAY = { retryForMs: 60_000 } as const;

/** The published identity: `base64url(sha256(..))` without padding. `nodeId` is the node, `ordinal` counts its effects. */
export function logicalInvocationId(
  tenant: string,
  runId: string,
  nodeId: string,
  ordinal: number,
  provider: string,
): string {
  return createHash("sha256")
    .update(["openwop:activity:v2", tenant, runId, nodeId, String(ordinal), provider].join("\0"))
    .digest("base64url");
}

export class Invocations {
  readonly #records: Records<Invocation>;
  readonly #worker: string;
  readonly #clock: Clock;
  /** Effects this worker is making: a run that comes back to it joins them. */
  readonly #running = new Map<string, Promise<unknown>>();
  readonly #told: (provider: string, status: "success" | "error" | "idempotent_hit", ms: number) => void;

  constructor(
    records: Records<Invocation>,
    worker: string,
    clock: Clock,
    told: (provider: string, status: "success" | "error" | "idempotent_hit", ms: number) => void,
  ) {
    this.#records = records;
    this.#worker = worker;
    this.#clock = clock;
    this.#told = told;
  }

  /** Makes an effect, or gives back what it came to before. Throws what it failed with; `effect_outcome_unknown` (I3). */
  async once<T>(
    record: RunRecord,
    nodeId: string,
    ordinal: number,
    iteration: number,
    { provider, idempotent }: EffectOptions,
    perform: (invocationId: string) => Promise<T>,
    signal: AbortSignal,
  ): Promise<T> {
    const { tenant } = record.owner;
    if (record.fork?.mode === "replay") return this.#replayed<T>(record, nodeId, ordinal, iteration, provider);
    const id = idOf(tenant, record.runId, nodeId, ordinal, iteration, provider);
    const key = [tenant, id];
    const same = `${tenant}\0${id}`;
    const running = this.#running.get(same);
    if (running !== undefined) return running as Promise<T>;
    const once = this.#claimed(key, id, { provider, idempotent }, perform, signal);
    this.#running.set(same, once);
    try {
      return await once;
    } finally {
      this.#running.delete(same);
    }
  }

  async #claimed<T>(
    key: readonly string[],
    id: string,
    { provider, idempotent }: EffectOptions,
    perform: (invocationId: string) => Promise<T>,
    signal: AbortSignal,
  ): Promise<T> {
    let revision = await this.#records.swap(key, this.#claim(), 0, AWAY);
    while (revision === undefined) {
      signal.throwIfAborted();
      const kept = await this.#records.surely(key, AWAY.retryForMs, signal);
      if (kept === undefined) revision = await this.#records.swap(key, this.#claim(), 0, AWAY);
      else if (kept.value.state === "done") {
        this.#told(provider, "idempotent_hit", 0);
        return kept.value.result as T;
      } else if (kept.value.state === "failed") {
        if (!mayHelp(kept.value)) throw errorOf(kept.value);
        revision = await this.#records.swap(key, this.#claim(), kept.revision, AWAY);
      } else if (kept.value.until > this.#clock.now() && kept.value.worker !== this.#worker)
        await this.#clock.sleep(POLL_MS, signal);
      else if (idempotent) revision = await this.#records.swap(key, this.#claim(), kept.revision, AWAY);
      else throw unknownOutcome(provider, id);
    }
    return this.#perform(key, id, revision, provider, perform);
  }

  async #perform<T>(
    key: readonly string[],
    id: string,
    revision: number,
    provider: string,
    perform: (id: string) => Promise<T>,
  ): Promise<T> {
    const started = this.#clock.monotonic();
    let held: Promise<number | undefined> = Promise.resolve(revision);
    const put = (value: Invocation): Promise<number | undefined> =>
      (held = held.then(async (last) => (last === undefined ? last : this.#records.swap(key, value, last, AWAY))));
    const renewing = setInterval(() => void put(this.#claim()).catch(() => undefined), CLAIM_MS / 3);
    try {
      const result = await perform(id).finally(() => clearInterval(renewing));
      await put({ state: "done", worker: this.#worker, until: 0, result });
      this.#told(provider, "success", this.#clock.monotonic() - started);
      return result;
    } catch (thrown) {
      const { code, message, details } = BeamlineError.from(thrown);
      // A call that was cut off has no known outcome: the claim stays as it is.
      if (code !== "cancelled")
        await put({ state: "failed", worker: this.#worker, until: 0, error: { code, message, details } });
      this.#told(provider, "error", this.#clock.monotonic() - started);
      throw thrown;
    }
  }

  /** A replay makes no effects: it has the recorded outcome, or fails closed. */
  async #replayed<T>(
    record: RunRecord,
    nodeId: string,
    ordinal: number,
    iteration: number,
    provider: string,
  ): Promise<T> {
    const sources = record.fork === undefined ? [] : effectRuns(record.fork);
    const { tenant } = record.owner;
    for (const source of sources) {
      const id = idOf(tenant, source, nodeId, ordinal, iteration, provider);
      const found = (await this.#records.surely([tenant, id], AWAY.retryForMs))?.value;
      if (found?.state === "done") return found.result as T;
      if (found?.state === "failed") throw errorOf(found);
    }
    const [source = ""] = sources;
    throw new BeamlineError("replay_source_missing", `run ${source} has no recorded outcome of node ${nodeId}`, {
      details: { sourceRunId: source, nodeId },
    });
  }

  #claim(): Invocation {
    return { state: "claimed", worker: this.#worker, until: this.#clock.now() + CLAIM_MS };
  }
}

/** A further turn of a loop makes further effects: its ordinals go on where a node of one turn could not reach. */
function idOf(
  tenant: string,
  runId: string,
  nodeId: string,
  ordinal: number,
  iteration: number,
  provider: string,
): string {
  return logicalInvocationId(tenant, runId, nodeId, Math.max(0, iteration - 1) * 1_000_000 + ordinal, provider);
}

function mayHelp({ error }: Invocation): boolean {
  return isCode(error?.code) && meaning(error.code).outcome === "retry";
}

function errorOf({ error }: Invocation): BeamlineError {
  return new BeamlineError(isCode(error?.code) ? error.code : "internal", error?.message ?? "the effect failed", {
    details: error?.details ?? {},
  });
}

function unknownOutcome(provider: string, invocationId: string): BeamlineError {
  return new BeamlineError(
    "aborted",
    `whether ${provider} was called is not known: the worker died in it, and it is not repeated`,
    {
      details: { reason: "effect_outcome_unknown", provider, invocationId },
    },
  );
}
