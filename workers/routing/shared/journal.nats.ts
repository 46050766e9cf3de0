/**
 * Answers to idempotency keys on the disk, for when Redis has lost them: the stream ROUTING_KEYS, whose messages go when the keys in them do.
 *
 * J1 A decision with a key is answered after its record is stored, so what was answered is known whatever dies.
 * J2 Records that arrive while one message is being written leave together in the next: many calls in flight share one write to the disk.
 * J3 It is read from end to end, and only to bring the keys of the last hour back to Redis.
 * J4 A record that could not be stored in time keeps no answer waiting, and is stored once the bus is back: the answer is out.
 * J5 A message that cannot be read hides none of the others: without them every key would wait until it is gone.
 */
import { randomUUID } from "node:crypto";
import type { Bus } from "../../../bus/connect.ts";
import { publish } from "../../../bus/publish.ts";
import { publishRetrying } from "../../../bus/retrying.ts";
import { readStream } from "../../../bus/read.ts";
import { BeamlineError } from "../../../contracts/errors.ts";
import { streams } from "../../../contracts/streams.ts";
import type { Words } from "../choice/decision.ts";

/** What was answered to a key. */
export interface KeyRecord {
  /** Of the key in Redis. */
  readonly name: string;
  readonly digest: string;
  readonly words: Words;
  /** When it was answered, epoch milliseconds. */
  readonly at: number;
}

/** A message: words once, and records that point at them. */
interface Page {
  readonly words: readonly (readonly [bare: string, enveloped: string])[];
  readonly keys: readonly (readonly [name: string, digest: string, words: number, at: number])[];
}

const SUBJECT = "log.routing.keys";
/** Longest a decision waits for its record, milliseconds; beyond it the answer goes out without one. */
const WAIT_MS = 1_000;
/** J4. How long the bus may be away. */
const LATER_MS = 60_000;
/** Records of one message: some 300 KiB at most. */
const MOST = 500;

interface Waiting {
  readonly record: KeyRecord;
  readonly resolve: () => void;
  readonly reject: (thrown: unknown) => void;
}

export class Journal {
  readonly #bus: Bus;
  #waiting: Waiting[] = [];
  #writing = false;

  constructor(bus: Bus) {
    this.#bus = bus;
  }

  /** J1. Throws as `publish`. */
  append(record: KeyRecord): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ record, resolve, reject });
      if (this.#writing) return;
      this.#writing = true;
      setImmediate(() => void this.#write());
    });
  }

  /** Every record there is, oldest first, a message's at a time. Throws `unavailable`. */
  async *read(): AsyncGenerator<readonly KeyRecord[]> {
    for await (const message of readStream(this.#bus, streams.routingKeys.name, { subject: SUBJECT }))
      yield recordsIn(message.data);
  }

  /** J2. Never rejects. */
  async #write(): Promise<void> {
    while (this.#waiting.length > 0) {
      const some = this.#waiting.splice(0, MOST);
      const page = pageOf(some);
      try {
        await publish(this.#bus, SUBJECT, page, { timeoutMs: WAIT_MS });
        for (const { resolve } of some) resolve();
      } catch (thrown) {
        for (const { reject } of some) reject(BeamlineError.from(thrown));
        const later = { msgId: randomUUID(), timeoutMs: LATER_MS };
        publishRetrying(this.#bus, SUBJECT, page, later).catch(() => undefined); // its failure was told
      }
    }
    this.#writing = false;
  }
}

function pageOf(some: readonly Waiting[]): string {
  const places = new Map<Words, number>();
  const words: [string, string][] = [];
  const keys = some.map(({ record: { name, digest, at, words: said } }) => {
    let place = places.get(said);
    if (place === undefined) {
      places.set(said, (place = words.length));
      words.push([said.bare, said.enveloped]);
    }
    return [name, digest, place, at] as const;
  });
  return JSON.stringify({ words, keys } satisfies Page);
}

/** J5. */
function recordsIn(data: Uint8Array): KeyRecord[] {
  try {
    const { words, keys } = JSON.parse(Buffer.from(data).toString("utf8")) as Page;
    return keys.flatMap(([name, digest, place, at]) => {
      const [bare, enveloped] = words[place] ?? [];
      const said = [name, digest, bare, enveloped].every((text) => typeof text === "string");
      return said && Number.isFinite(at) ? [{ name, digest, words: { bare, enveloped } as Words, at }] : [];
    });
  } catch {
    return [];
  }
}
