/**
 * What the API gateway spent, from its own log: every call is a record in the stream `INFERENCE`, one subject per tenant. Each worker follows the log
 * of the present month and adds up in memory, so that a budget is known without asking anyone, and nothing else has to be rebuilt.
 */
import { asking } from "../../bus/apierror.ts";
import type { Bus } from "../../bus/connect.ts";
import { partOf, tokenOf } from "../../bus/keys.ts";
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

type Consumer = Awaited<ReturnType<Bus["js"]["consumers"]["get"]>>;
type ConsumerMessages = Awaited<ReturnType<Consumer["consume"]>>;
type Start =
  | { readonly deliver_policy: "by_start_time"; readonly opt_start_time: string }
  | { readonly deliver_policy: "by_start_sequence"; readonly opt_start_seq: number };

/** Records one question returns at most, the newest. */
const MOST_RECORDS = 10_000;

export class Spending {
  readonly #bus: Bus;
  /** `<tenant> <month> <provider>` → micro-dollars. */
  readonly #sums = new Map<string, number>();
  #applied = 0;
  #waiting: (() => void)[] = [];
  #reader: ConsumerMessages | undefined;
  #loop: Promise<void> = Promise.resolve();
  #stopped = false;

  constructor(bus: Bus) {
    this.#bus = bus;
  }

  /** Reads this month's log and follows it. Resolves when what is there was added up. Throws `unavailable`. */
  async start(nowMs: number): Promise<void> {
    const now = new Date(nowMs);
    const month = new Date(Date.UTC(now.getUTCFullYear(), now.getUTCMonth(), 1)).toISOString();
    const { promise: caughtUp, resolve } = Promise.withResolvers<void>();
    const first = await this.#open({ deliver_policy: "by_start_time", opt_start_time: month });
    if (first.pending === 0) resolve();
    this.#loop = this.#follow(first.messages, resolve);
    await caughtUp;
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    this.#reader?.stop();
    for (const wake of this.#waiting.splice(0)) wake();
    await this.#loop;
  }

  /** Keeps a call; durable when it resolves, and as a rule counted. Throws as `publishRetrying`. */
  async record(tenant: string, call: Call): Promise<void> {
    const { seq } = await publishRetrying(this.#bus, `${PREFIX}.${tokenOf(tenant)}`, JSON.stringify(call), {
      msgId: `call-${systemIds.v4()}`,
      timeoutMs: 10_000,
    });
    const late = AbortSignal.timeout(COUNTED_MS);
    while (this.#applied < seq && !this.#stopped && !late.aborted) {
      await new Promise<void>((resolve) => {
        this.#waiting.push(resolve);
        late.addEventListener("abort", () => resolve(), { once: true });
      });
    }
  }

  async #open(from: Start): Promise<{ messages: ConsumerMessages; pending: number }> {
    return asking("read what the gateway spent", async () => {
      const consumer = await this.#bus.js.consumers.get(streams.inference.name, from);
      const { num_pending: pending } = await consumer.info();
      return { messages: await consumer.consume({ max_messages: 500 }), pending };
    });
  }

  /** Adds up until told to stop; a reader that fails is replaced by one that goes on where it was. Never rejects. */
  async #follow(opened: ConsumerMessages, caughtUp: () => void): Promise<void> {
    let messages = opened;
    while (!this.#stopped) {
      this.#reader = messages;
      try {
        for await (const message of messages) {
          if (message.seq <= this.#applied) continue;
          this.#add(message.subject, message.json<Call>());
          this.#applied = message.seq;
          for (const wake of this.#waiting.splice(0)) wake();
          if (message.info.pending === 0) caughtUp();
        }
      } catch {
        // The connection or the consumer is gone: read on below.
      }
      while (!this.#stopped) {
        await systemClock.sleep(RETRY_MS);
        try {
          messages = (await this.#open({ deliver_policy: "by_start_sequence", opt_start_seq: this.#applied + 1 }))
            .messages;
          break;
        } catch {
          // Not yet.
        }
      }
    }
    messages.stop();
    caughtUp();
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
