/**
 * Assignments on the disk before the reply that promises them, in the stream ROUTING_PROMISES, and out of it once they are published.
 *
 * P1 A promise is a timer: nobody takes it out when its worker died, so it fires and whichever router gets it publishes what it holds. Published
 *    twice is once, by message id.
 * P2 Promises made while others are being written leave together in one write: many requests in flight share one trip to the disk.
 * P3 Message ids are forgotten after the duplicate window. What is kept late is looked for in the stream first.
 * P4 A bus that is back in time is no reason to refuse. A promise that was refused and may have been stored all the same is taken out as soon as it can
 *    be: nothing was decided, so nothing may be done.
 */
import { setTimeout as pause } from "node:timers/promises";
import { asking } from "../../../bus/apierror.ts";
import type { Bus } from "../../../bus/connect.ts";
import { consume, type Consumption } from "../../../bus/consume.ts";
import { firstSince, readStream } from "../../../bus/read.ts";
import { retrying } from "../../../bus/retrying.ts";
import { cancel, schedule } from "../../../bus/schedule.ts";
import type { OutgoingAssignment } from "../../../contracts/execution/assignment.ts";
import { BeamlineError } from "../../../contracts/errors.ts";
import { header } from "../../../contracts/headers.ts";
import { streams } from "../../../contracts/streams.ts";
import type { Logger } from "../../../runtime/log.ts";

const { routingPromises, exec } = streams;
/** Where a promise that nobody kept fires. */
const DUE = "retry.routing_promises.due";
/** When it does, milliseconds after it was made. Longer than publishing takes with every try. */
export const DUE_MS = 8_000;
/** Longest a request waits for its promise, milliseconds. */
const WAIT_MS = 2_000;
/** Assignments, and bytes of them, in one write at most. */
const MOST = 200;
const MOST_BYTES = 1_048_576;

/** Publishes an assignment, or buries it. */
export type Keep = (assignment: OutgoingAssignment) => Promise<void>;

interface Page {
  /** When it was written, epoch milliseconds. */
  readonly at: number;
  readonly assignments: readonly OutgoingAssignment[];
}

interface Waiting {
  readonly assignment: OutgoingAssignment;
  /** Told how to say that the promise was kept. */
  readonly resolve: (kept: () => Promise<void>) => void;
  readonly reject: (thrown: unknown) => void;
}

export interface PromiseOptions {
  readonly newId: () => string;
  readonly now: () => number;
}

export class Promises {
  readonly #bus: Bus;
  readonly #options: PromiseOptions;
  #waiting: Waiting[] = [];
  #writing = false;

  constructor(bus: Bus, options: PromiseOptions) {
    this.#bus = bus;
    this.#options = options;
  }

  /** Stored when it resolves, with what to call once it was kept. Throws `unavailable` (P4). */
  make(assignment: OutgoingAssignment): Promise<() => Promise<void>> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ assignment, resolve, reject });
      if (this.#writing) return;
      this.#writing = true;
      setImmediate(() => void this.#write());
    });
  }

  /** P2. Never rejects. */
  async #write(): Promise<void> {
    while (this.#waiting.length > 0) {
      const some = this.#waiting.splice(0, this.#howMany());
      const id = this.#options.newId();
      const key = [id];
      const page: Page = { at: this.#options.now(), assignments: some.map(({ assignment }) => assignment) };
      try {
        const timer = { key, when: { delayMs: DUE_MS }, target: DUE, payload: JSON.stringify(page), msgId: id };
        await retrying(this.#bus, { timeoutMs: WAIT_MS }, (limits) =>
          schedule(this.#bus, routingPromises, { ...timer, ...limits }),
        );
        let left = some.length;
        const kept = async (): Promise<void> => {
          // One that stays fires once more than needed, and finds everything published.
          if (--left === 0) await cancel(this.#bus, routingPromises, key).catch(() => false);
        };
        for (const { resolve } of some) resolve(kept);
      } catch (thrown) {
        const error = BeamlineError.from(thrown);
        void this.#takeOut(key);
        for (const { reject } of some) reject(new BeamlineError("unavailable", NOT_STORED, { cause: error }));
      }
    }
    this.#writing = false;
  }

  /** P4: looks again and again, since what is on its way may be stored after it was looked for. Never rejects. */
  async #takeOut(key: readonly string[]): Promise<void> {
    const until = this.#options.now() + DUE_MS;
    for (let wait = 50; this.#options.now() < until; wait *= 2) {
      if (await cancel(this.#bus, routingPromises, key).catch(() => false)) return;
      await pause(wait);
    }
  }

  #howMany(): number {
    let bytes = 0;
    const end = this.#waiting.findIndex(
      ({ assignment }, at) => at >= MOST || (bytes += assignment.body.length) > MOST_BYTES,
    );
    return end === -1 ? this.#waiting.length : Math.max(1, end);
  }
}

const NOT_STORED = "the assignment cannot be stored at the moment, so nothing was decided";

/** P1: keeps the promises of dead workers until it is stopped. */
export function keepPromises(bus: Bus, keep: Keep, log: Logger, now: () => number): Promise<Consumption> {
  return consume(bus, {
    stream: routingPromises,
    durable: "router-promises",
    filterSubjects: [DUE],
    concurrency: 8,
    maxDeliver: 10,
    backoffMs: [1_000, 2_000, 4_000],
    async handler(payload) {
      const { at, assignments } = JSON.parse(Buffer.from(payload).toString("utf8")) as Page;
      const late = now() - at > exec.duplicateWindowMs / 2;
      for (const assignment of assignments)
        if (!(late && (await isPublished(bus, assignment, at)))) await keep(assignment);
    },
    onEvent(event) {
      if (event.type === "dead") log.error("promised assignments are a dead letter", { error: event.error });
      if (event.type === "trouble" || event.type === "undecided")
        log.warn("keeping promised assignments is in trouble", { error: event.error });
    },
  });
}

/** P3. Of a subject that another stream than ours takes nothing is known. Throws `unavailable`: then it is asked again. */
async function isPublished(bus: Bus, { subject, msgId }: OutgoingAssignment, at: number): Promise<boolean> {
  const stream = await asking("find the stream of a subject", () => bus.jsm.streams.find(subject)).catch(
    (thrown: unknown) => {
      if (BeamlineError.from(thrown).code === "not_found") return undefined;
      throw thrown;
    },
  );
  if (stream !== exec.name) return false;
  const from = await firstSince(bus, stream, new Date(at - 60_000));
  if (from === undefined) return false;
  for await (const message of readStream(bus, stream, { subject, from }))
    if (message.header.get(header.msgId) === msgId) return true;
  return false;
}
