/**
 * Idempotency keys on the disk, for when Redis has lost them: one subject per key in the stream ROUTING_KEYS, gone after the keys' time.
 *
 * J1 A decision with a key is answered after its record is stored, so what was answered is known whatever dies.
 * J2 Records that arrive while one batch is being written leave together in the next: many calls in flight share one write to the disk.
 * J3 It is read only when Redis cannot know a key: after it was flushed, replaced or restarted, for as long as keys live, and while it is away.
 */
import { createHash } from "node:crypto";
import { apiCode, apiCodeOf, asking } from "../../bus/apierror.ts";
import { MAX_BATCH, publishBatch } from "../../bus/batch.ts";
import type { Bus } from "../../bus/connect.ts";
import { tokenOf } from "../../bus/keys.ts";
import { streams } from "../../contracts/streams.ts";
import type { Words } from "./decision.ts";

/** What was answered to a key. */
export interface KeyRecord extends Words {
  readonly digest: string;
  /** When it was answered, epoch milliseconds. */
  readonly at: number;
}

/** Longest a decision waits for its record, milliseconds; beyond it the answer goes out without one. */
const WAIT_MS = 1_000;

interface Waiting {
  readonly subject: string;
  readonly payload: string;
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
  append(tenant: string, key: string, record: KeyRecord): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ subject: subjectOf(tenant, key), payload: JSON.stringify(record), resolve, reject });
      if (this.#writing) return;
      this.#writing = true;
      setImmediate(() => void this.#write());
    });
  }

  /** The last answer to a key. Throws `unavailable`. */
  async find(tenant: string, key: string): Promise<KeyRecord | undefined> {
    const last_by_subj = subjectOf(tenant, key);
    return asking("look up an idempotency key", async () => {
      try {
        const message = await this.#bus.jsm.streams.getMessage(streams.routingKeys.name, { last_by_subj });
        return message?.json<KeyRecord>();
      } catch (thrown) {
        if (apiCodeOf(thrown) === apiCode.messageNotFound) return undefined;
        throw thrown;
      }
    });
  }

  /** Whether no key was ever stored. Throws `unavailable`. */
  async isNew(): Promise<boolean> {
    const { state } = await asking("look at the keys", () => this.#bus.jsm.streams.info(streams.routingKeys.name));
    return state.last_seq === 0;
  }

  /** J2. Never rejects. */
  async #write(): Promise<void> {
    while (this.#waiting.length > 0) {
      const batch = this.#waiting.splice(0, MAX_BATCH);
      try {
        await publishBatch(this.#bus, batch, { timeoutMs: WAIT_MS });
        for (const { resolve } of batch) resolve();
      } catch (thrown) {
        for (const { reject } of batch) reject(thrown);
      }
    }
    this.#writing = false;
  }
}

function subjectOf(tenant: string, key: string): string {
  return `log.routing.key.${tokenOf(tenant)}.${createHash("sha256").update(key).digest("hex").slice(0, 40)}`;
}
