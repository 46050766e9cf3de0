/**
 * What the API gateway spent, from its own log: every call is a record in the stream `INFERENCE`, one subject per tenant. Each worker follows the log
 * of the present month and adds up in memory, so that a budget is known without asking anyone, and nothing else has to be rebuilt.
 */
import { asking } from "../../bus/apierror.ts";
import type { Bus } from "../../bus/connect.ts";
import { partOf, tokenOf } from "../../bus/keys.ts";
import { publishRetrying } from "../../bus/retrying.ts";
import { streams } from "../../contracts/streams.ts";
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
/** Records one question returns at most, the newest. */
const MOST_RECORDS = 10_000;

export class Spending {
  readonly #bus: Bus;
  /** `<tenant> <month> <provider>` → micro-dollars. */
  readonly #sums = new Map<string, number>();
  #applied = 0;
  #waiting: (() => void)[] = [];
  #reader: { stop(): void } | undefined;
  #stopped = false;

  constructor(bus: Bus) {
    this.#bus = bus;
  }

  /** Reads this month's log and follows it. Resolves when what is there was added up. Throws `unavailable`. */
  async start(nowMs: number): Promise<void> {
    const month = new Date(nowMs);
    const from = Date.UTC(month.getUTCFullYear(), month.getUTCMonth(), 1);
    const { messages, pending } = await asking("read what the gateway spent", async () => {
      const consumer = await this.#bus.js.consumers.get(streams.inference.name, {
        deliver_policy: "by_start_time",
        opt_start_time: new Date(from).toISOString(),
      });
      const info = await consumer.info();
      return { messages: await consumer.consume({ max_messages: 500 }), pending: info.num_pending };
    });
    this.#reader = messages;
    const { promise: caughtUp, resolve } = Promise.withResolvers<void>();
    if (pending === 0) resolve();
    void (async () => {
      for await (const message of messages) {
        this.#add(message.subject, message.json<Call>());
        this.#applied = message.seq;
        for (const wake of this.#waiting.splice(0)) wake();
        if (message.info.pending === 0) resolve();
      }
      resolve();
    })();
    await caughtUp;
  }

  stop(): void {
    this.#stopped = true;
    this.#reader?.stop();
    for (const wake of this.#waiting.splice(0)) wake();
  }

  /** Keeps a call; counted when it resolves. Throws as `publishRetrying`. */
  async record(tenant: string, call: Call): Promise<void> {
    const { seq } = await publishRetrying(this.#bus, `${PREFIX}.${tokenOf(tenant)}`, JSON.stringify(call), {
      msgId: `call-${systemIds.v4()}`,
      timeoutMs: 10_000,
    });
    while (this.#applied < seq && !this.#stopped) await new Promise<void>((resolve) => this.#waiting.push(resolve));
  }

  /** Integer micro-dollars a tenant spent on a provider in the month of a moment. */
  spent(tenant: string, provider: string, atMs: number): number {
    return this.#sums.get(sumKey(tenant, provider, atMs)) ?? 0;
  }

  /** A tenant's calls since a moment, oldest first. Throws `unavailable`. */
  async calls(tenant: string, sinceMs: number, signal: AbortSignal): Promise<Call[]> {
    const { messages, pending } = await asking("read the gateway's calls", async () => {
      const consumer = await this.#bus.js.consumers.get(streams.inference.name, {
        filter_subjects: [`${PREFIX}.${tokenOf(tenant)}`],
        deliver_policy: "by_start_time",
        opt_start_time: new Date(Math.max(0, sinceMs)).toISOString(),
      });
      const info = await consumer.info();
      if (info.num_pending === 0) return { messages: undefined, pending: 0 };
      return { messages: await consumer.consume({ max_messages: 500 }), pending: info.num_pending };
    });
    const calls: Call[] = [];
    if (messages === undefined) return calls;
    const stop = (): void => messages.stop();
    signal.addEventListener("abort", stop, { once: true });
    let left = pending;
    for await (const message of messages) {
      calls.push(message.json<Call>());
      if (calls.length > MOST_RECORDS) calls.shift();
      if (--left <= 0) break;
    }
    signal.removeEventListener("abort", stop);
    messages.stop();
    signal.throwIfAborted();
    return calls.filter(({ at_ms }) => at_ms >= sinceMs);
  }

  #add(subject: string, call: Call): void {
    const key = sumKey(partOf(subject.slice(PREFIX.length + 1)), call.provider, call.at_ms);
    this.#sums.set(key, (this.#sums.get(key) ?? 0) + call.cost_micros);
  }
}

function sumKey(tenant: string, provider: string, atMs: number): string {
  return `${tenant} ${new Date(atMs).toISOString().slice(0, 7)} ${provider}`;
}
