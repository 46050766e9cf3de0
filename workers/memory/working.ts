/**
 * Working memory: goals, tasks, tool calls, decisions, patterns, agent state (aiOS, memory, working tier).
 *
 * K1 Written to the log, then to hot state, then acknowledged: a read after an acknowledged write sees it.
 * K2 Hot state is looked at first, so that a write it cannot show is refused before it is stored.
 * K3 A change to a thing is appended only when nobody changed it meanwhile, and made again on what is there otherwise: no update is lost.
 * K4 Writing what is there already stores nothing.
 */
import { isDeepStrictEqual } from "node:util";
import { BeamlineError } from "../../contracts/errors.ts";
import type { JsonObject } from "../../contracts/codec.ts";
import type { Clock } from "../../runtime/clock.ts";
import type { MemoryLog } from "./log.ts";
import type { Held, Hot } from "./ports.ts";
import type { Kind, Logged, Provenance } from "./record.ts";

/** Who writes: the call as far as memory keeps it. */
export interface Writer extends Provenance {
  readonly tenant: string;
  /** Idempotency key of the call, empty without one. */
  readonly key: string;
  readonly signal?: AbortSignal | undefined;
}

const MAX_CHANGES = 20;

export class Working {
  readonly hot: Hot;
  readonly #log: MemoryLog;
  readonly #clock: Clock;
  readonly #turns = new Map<string, Promise<unknown>>();

  constructor(hot: Hot, log: MemoryLog, clock: Clock) {
    this.hot = hot;
    this.#log = log;
    this.#clock = clock;
  }

  /** Keeps a thing, replacing what has its id. `held` when it was looked up already. */
  async put(
    writer: Writer,
    kind: Kind,
    id: string,
    state: JsonObject,
    held?: readonly [Held | undefined],
  ): Promise<Logged | undefined> {
    const [known] = held ?? (await this.hot.peek(writer.tenant, [[kind, id]]));
    if (known?.state !== undefined && isDeepStrictEqual(known.state, state)) return undefined; // K4
    return this.#store(writer, kind, id, state, known, undefined);
  }

  /** Keeps a thing that must be new. Throws `already_exists` for an id the log knows, however long ago. */
  async insert(writer: Writer, kind: Kind, id: string, state: JsonObject): Promise<Logged> {
    await this.hot.peek(writer.tenant, [[kind, id]]); // K2
    try {
      return await this.#store(writer, kind, id, state, undefined, 0);
    } catch (thrown) {
      throw refusedDuplicate(thrown, kind, id);
    }
  }

  /**
   * Changes a thing (K3). `change` may be called again, with a newer state. False when there is no such thing. Throws `aborted` when others
   * kept changing it.
   */
  change(
    writer: Writer,
    kind: Kind,
    id: string,
    change: (state: JsonObject) => JsonObject,
  ): Promise<Logged | undefined> {
    return this.#inTurn(`${writer.tenant}\u0000${kind}\u0000${id}`, async () => {
      for (let attempt = 1; ; attempt++) {
        const [held] = await this.hot.peek(writer.tenant, [[kind, id]]);
        if (held?.state === undefined) return undefined;
        try {
          return await this.#store(writer, kind, id, change(held.state), held, held.seq);
        } catch (thrown) {
          if (!(thrown instanceof BeamlineError) || thrown.code !== "aborted" || attempt >= MAX_CHANGES) throw thrown;
          await this.#catchUp(writer.tenant, kind, id);
        }
      }
    });
  }

  /** Gives a thing up, when it is still as it was seen. */
  async giveUp(writer: Writer, kind: Kind, held: Held): Promise<boolean> {
    const record = {
      ...this.#provenance(writer),
      tenant: writer.tenant,
      kind,
      id: held.id,
      at: this.#clock.now(),
      born: held.born,
      state: undefined,
    };
    try {
      await this.hot.apply([await this.#log.append(record, { expect: held.seq, signal: writer.signal })]);
      return true;
    } catch (thrown) {
      if (thrown instanceof BeamlineError && thrown.code === "aborted") return false;
      throw thrown;
    }
  }

  async #store(
    writer: Writer,
    kind: Kind,
    id: string,
    state: JsonObject,
    known: Held | undefined,
    expect: number | undefined,
  ): Promise<Logged> {
    const { tenant, key, signal } = writer;
    const at = this.#clock.now();
    const born = known?.state === undefined ? this.#clock.micros() : known.born;
    const record = { ...this.#provenance(writer), tenant, kind, id, at, born, state };
    const msgId = key === "" ? undefined : `memory:${tenant}:${kind}:${id}:${key}`;
    const stored = await this.#log.append(record, { expect, msgId, signal });
    if (stored.duplicate) {
      await this.#catchUp(tenant, kind, id); // the log has the first one, which may be another state
    } else await this.hot.apply([stored]);
    return stored;
  }

  #provenance({ by, task, trace }: Writer): Provenance {
    return { by, task, trace };
  }

  /** Hot state lags behind the log for this thing: another worker is between its append and its apply, or died there. */
  async #catchUp(tenant: string, kind: Kind, id: string): Promise<void> {
    const last = await this.#log.last(tenant, kind, id);
    if (last !== undefined) await this.hot.apply([last]);
  }

  async #inTurn<T>(key: string, run: () => Promise<T>): Promise<T> {
    const before = this.#turns.get(key);
    const mine = before === undefined ? run() : before.then(run, run);
    this.#turns.set(key, mine);
    try {
      return await mine;
    } finally {
      if (this.#turns.get(key) === mine) this.#turns.delete(key);
    }
  }
}

/** A conflict with what must be new, as the error the contract's callers look for. */
export function refusedDuplicate(thrown: unknown, kind: Kind, id: string): unknown {
  if (!(thrown instanceof BeamlineError) || thrown.code !== "aborted") return thrown;
  return new BeamlineError("already_exists", `id: there is a ${kind} ${id} already`, { field: "id" });
}
