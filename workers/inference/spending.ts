/**
 * What the API gateway spent, from its own log: every call is a record in the stream `INFERENCE`, one subject per tenant. Each worker follows the log
 * of the present month and adds up in memory, so that a budget is known without asking anyone, and nothing else has to be rebuilt.
 */
import { asking } from "../../bus/apierror.ts";
import type { Bus } from "../../bus/connect.ts";
import { followStream } from "../../bus/follow.ts";
import { partOf, tokenOf } from "../../bus/keys.ts";
import { firstSince, readStream } from "../../bus/read.ts";
import { publishRetrying } from "../../bus/retrying.ts";
import { streams } from "../../contracts/streams.ts";
import { systemClock } from "../../runtime/clock.ts";
import { systemIds } from "../../runtime/ids.ts";

/** One call, as the log keeps it. */
export interface Call {
  readonly provider: string;
  readonly model: string;
  readonly input_tokens: number;
  readonly output_tokens: number;
  /** Integer micro-dollars. */
  readonly cost_micros: number;
  /** Epoch milliseconds. */
  readonly at_ms: number;
  readonly requesting_agent: string;
  readonly task_id: string;
}

const PREFIX = "log.inference.calls";
/** How long a call waits to be counted here; it is durable before, milliseconds. */
const COUNTED_MS = 2_000;
const RETRY_MS = 500;
/** How long the bus may be away when a call has been paid for, milliseconds. */
const RECORD_MS = 60_000;

/** Records one question returns at most, the newest. */
const MOST_RECORDS = 10_000;

export class Spending {
  readonly #bus: Bus;
  /** `<tenant> <month> <provider>` → micro-dollars. */
  readonly #sums = new Map<string, number>();
  #applied = 0;
  #waiting: (() => void)[] = [];
  readonly #reading = new AbortController();
  #loop: Promise<void> = Promise.resolve();

  constructor(bus: Bus) {
    this.#bus = bus;
  }

  /** Reads this month's log and follows it. Resolves when what is there was added up. Throws `unavailable`. */
  async start(nowMs: number): Promise<void> {
    const now = new Date(nowMs);
    const month = new Date(Date.UTC(now.getUTCFullYear(), now.getUTCMonth(), 1));
    const first = await firstSince(this.#bus, streams.inference.name, month);
    const { state } = await asking("read what the gateway spent", () =>
      this.#bus.jsm.streams.info(streams.inference.name),
    );
    const { promise: caughtUp, resolve } = Promise.withResolvers<void>();
    if (first === undefined) resolve();
    this.#applied = (first ?? state.last_seq + 1) - 1;
    this.#loop = this.#follow(state.last_seq, resolve);
    await caughtUp;
  }

  async stop(): Promise<void> {
    this.#reading.abort();
    for (const wake of this.#waiting.splice(0)) wake();
    await this.#loop;
  }

  /** Keeps a call; durable when it resolves, and as a rule counted. Throws as `publishRetrying`. */
  async record(tenant: string, call: Call): Promise<void> {
    const { seq } = await publishRetrying(this.#bus, `${PREFIX}.${tokenOf(tenant)}`, JSON.stringify(call), {
      msgId: `call-${systemIds.v4()}`,
      timeoutMs: RECORD_MS,
    });
    const late = AbortSignal.timeout(COUNTED_MS);
    while (this.#applied < seq && !this.#reading.signal.aborted && !late.aborted) {
      await new Promise<void>((resolve) => {
        this.#waiting.push(resolve);
        late.addEventListener("abort", () => resolve(), { once: true });
      });
    }
  }

  /** Adds up until told to stop; a reader that fails is replaced by one that goes on where it was. Never rejects. */
  async #follow(lastAtStart: number, caughtUp: () => void): Promise<void> {
    const { signal } = this.#reading;
    while (!signal.aborted) {
      try {
        for await (const message of followStream(this.#bus, streams.inference.name, {
          from: this.#applied + 1,
          signal,
        })) {
          this.#add(message.subject, callIn(message.data));
          this.#applied = message.seq;
          for (const wake of this.#waiting.splice(0)) wake();
          if (message.seq >= lastAtStart) caughtUp();
        }
      } catch {
        // The connection or the consumer is gone: read on.
        await systemClock.sleep(RETRY_MS);
      }
    }
    caughtUp();
  }

  /** Integer micro-dollars a tenant spent on a provider in the month of a moment. */
  spent(tenant: string, provider: string, atMs: number): number {
    return this.#sums.get(sumKey(tenant, provider, atMs)) ?? 0;
  }

  /** A tenant's calls since a moment, oldest first. Throws `unavailable`. */
  async calls(tenant: string, sinceMs: number, signal: AbortSignal): Promise<Call[]> {
    const calls: Call[] = [];
    const first = await firstSince(this.#bus, streams.inference.name, new Date(Math.max(0, sinceMs)));
    if (first === undefined) return calls;
    const subject = `${PREFIX}.${tokenOf(tenant)}`;
    for await (const message of readStream(this.#bus, streams.inference.name, { subject, from: first })) {
      const call = callIn(message.data);
      if (call !== undefined) calls.push(call);
      if (calls.length > MOST_RECORDS) calls.shift();
      signal.throwIfAborted();
    }
    return calls.filter(({ at_ms }) => at_ms >= sinceMs);
  }

  #add(subject: string, call: Call | undefined): void {
    if (call === undefined) return;
    const key = sumKey(partOf(subject.slice(PREFIX.length + 1)), call.provider, call.at_ms);
    this.#sums.set(key, (this.#sums.get(key) ?? 0) + call.cost_micros);
  }
}

/** A call as the log holds it; undefined for what is none: one message that cannot be read must not hide all the others. */
function callIn(data: Uint8Array): Call | undefined {
  let call: unknown;
  try {
    call = JSON.parse(Buffer.from(data).toString("utf8"));
  } catch {
    return undefined;
  }
  if (typeof call !== "object" || call === null) return undefined;
  const { provider, model, requesting_agent, task_id, ...figures } = call as Readonly<Record<keyof Call, unknown>>;
  const { at_ms, cost_micros, input_tokens, output_tokens } = figures;
  const texts = [provider, model, requesting_agent, task_id].every((text) => typeof text === "string");
  const counts = [at_ms, cost_micros, input_tokens, output_tokens].every((count) => isCount(count));
  return texts && counts && (at_ms as number) <= LAST_MS ? (call as Call) : undefined;
}

/** The last moment there is a month of, epoch milliseconds. */
const LAST_MS = 8.64e15;

function isCount(given: unknown): boolean {
  return Number.isSafeInteger(given) && (given as number) >= 0;
}

function sumKey(tenant: string, provider: string, atMs: number): string {
  return `${tenant} ${new Date(atMs).toISOString().slice(0, 7)} ${provider}`;
}
