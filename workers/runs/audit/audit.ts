/**
 * The audit log (OpenWOP, audit log): who did what, in one hash chain, with signed checkpoints.
 *
 * A1 An entry's `prevHash` is the SHA-256 of the canonical JSON of the entry before it; the first one's is null.
 * A2 Entries of a moment are one append, checked against the last: the chain has one writer at a time, however many workers there are.
 * A3 A checkpoint signs `{checkpoint, atSequence, merkleRoot}` (its canonical JSON) with Ed25519; the root is RFC 6962's over the canonical
 *    JSON of the entries 0 to `atSequence`.
 * A4 The log is appended to and read; its stream refuses to change or remove an entry.
 * A5 What a person decides or an operator changes is in the log before its caller hears of it (`record`). The creation of a run is noted within
 *    moments (`note`): its own log, written before the answer, names who made it.
 */
import { createHash, createPrivateKey, createPublicKey, randomUUID, sign, verify, type KeyObject } from "node:crypto";
import { fromJetStream } from "../../../bus/apierror.ts";
import type { Bus } from "../../../bus/connect.ts";
import { readStream } from "../../../bus/read.ts";
import { publishRetrying } from "../../../bus/retrying.ts";
import { BeamlineError } from "../../../contracts/errors.ts";
import { canonicalJson, type Json } from "../../../contracts/openwop/json.ts";
import type { Clock } from "../../../runtime/clock.ts";
import type { Asker } from "../caller.ts";
import { NO_PEAKS, rootOf, withLeaf, type Peaks } from "./merkle.ts";
import type { AuditKey } from "../secrets.ts";

export const CHECKPOINT_ENTRIES = 1_000;
export const CHECKPOINT_SECONDS = 300;

export interface AuditEntry {
  readonly sequence: number;
  readonly ts: string;
  readonly tenant: string;
  readonly principal: string;
  readonly action: string;
  readonly target: string;
  readonly details: Json;
  readonly prevHash: string | null;
}

export interface Checkpoint {
  readonly checkpoint: string;
  readonly atSequence: number;
  readonly merkleRoot: string;
  readonly signature: string;
}

/** One append: entries, perhaps a checkpoint after them, and what the next append needs to know. */
interface Batch {
  readonly entries: readonly AuditEntry[];
  readonly checkpoint?: Checkpoint;
  readonly tail: Tail;
}

type Noted = Omit<AuditEntry, "sequence" | "prevHash">;

interface Tail {
  readonly lastHash: string | null;
  readonly peaks: Peaks;
  /** Entries at the last checkpoint, and its time in epoch milliseconds. */
  readonly checkpointCount: number;
  readonly checkpointAt: number;
}

const STREAM = "RUN_AUDIT";
const SUBJECT = "log.run_audit.entries";
const GATHER_MS = 20;
const MAX_BATCH = 200;
/** How long an append is tried before the entries are left for later. */
const APPEND_MS = 8_000;
/** How often a worker looks whether a checkpoint is due; it is made that much early, so that none comes late. */
const LOOK_MS = 15_000;
const EMPTY: Tail = { lastHash: null, peaks: NO_PEAKS, checkpointCount: 0, checkpointAt: 0 };

export class Audit {
  readonly #bus: Bus;
  readonly #clock: Clock;
  readonly #privateKey: KeyObject;
  readonly #publicKey: KeyObject;
  /** Base64 SPKI, as discovery shows it. */
  readonly publicKey: string;
  readonly #timer: NodeJS.Timeout;
  #tail: Tail = EMPTY;
  #streamSeq = 0;
  #waiting: Noted[] = [];
  #writing: Promise<void> | undefined;

  private constructor(bus: Bus, key: AuditKey, clock: Clock) {
    this.#bus = bus;
    this.#clock = clock;
    this.#privateKey = createPrivateKey(key.privateKey);
    this.#publicKey = createPublicKey({ key: Buffer.from(key.publicKey, "base64"), format: "der", type: "spki" });
    this.publicKey = key.publicKey;
    this.#timer = setInterval(() => void this.#look(), LOOK_MS).unref();
  }

  static async open(bus: Bus, key: AuditKey, clock: Clock): Promise<Audit> {
    const audit = new Audit(bus, key, clock);
    await audit.#readTail();
    return audit;
  }

  /** Adds an entry; written within moments, together with others. */
  note(asker: Pick<Asker, "tenant" | "principal">, action: string, target: string, details: Json): void {
    this.#add(asker, action, target, details);
    this.#start(false);
  }

  /** Adds an entry and waits until it is on the disk (A5). Throws `unavailable` when it cannot be written. */
  async record(
    asker: Pick<Asker, "tenant" | "principal">,
    action: string,
    target: string,
    details: Json,
  ): Promise<void> {
    const entry = this.#add(asker, action, target, details);
    await this.flush();
    if (!this.#waiting.includes(entry)) return;
    throw new BeamlineError("unavailable", "what was done cannot be written to the audit log", {
      retryAfterSeconds: 1,
    });
  }

  #add(
    { tenant, principal }: Pick<Asker, "tenant" | "principal">,
    action: string,
    target: string,
    details: Json,
  ): Noted {
    const entry = { ts: new Date(this.#clock.now()).toISOString(), tenant, principal, action, target, details };
    this.#waiting.push(entry);
    return entry;
  }

  /** Everything noted so far is written. */
  async flush(): Promise<void> {
    this.#start(true);
    while (this.#writing !== undefined) await this.#writing;
  }

  async stop(): Promise<void> {
    clearInterval(this.#timer);
    await this.flush();
  }

  /** Whoever wrote the last entries may be gone: any worker makes the checkpoint they wait for. */
  async #look(): Promise<void> {
    if (this.#writing === undefined) await this.#readTail().catch(() => undefined);
    this.#start(true);
  }

  #start(now: boolean): void {
    if (this.#pending()) this.#writing ??= this.#drain(now);
  }

  #pending(): boolean {
    return this.#waiting.length > 0 || this.#checkpointDue(this.#tail);
  }

  /** Ends in the same step in which it finds nothing left: an entry added after that begins the next one, none falls in between. */
  async #drain(now: boolean): Promise<void> {
    await (now ? Promise.resolve() : this.#clock.sleep(GATHER_MS));
    for (let away = false; !away && this.#pending();) {
      const taken = this.#waiting.splice(0, MAX_BATCH);
      try {
        const batch = this.#chain(taken);
        // An append whose answer was lost is made again under its id, so that nothing is in the chain twice.
        const { seq } = await publishRetrying(this.#bus, SUBJECT, JSON.stringify(batch), {
          msgId: randomUUID(),
          expectLastSubjectSequence: this.#streamSeq,
          timeoutMs: APPEND_MS,
        });
        this.#streamSeq = seq;
        this.#tail = batch.tail;
      } catch (thrown) {
        this.#waiting.unshift(...taken);
        // Another worker wrote, or the bus is away: what was noted waits.
        away = !(thrown instanceof BeamlineError) || thrown.code !== "aborted";
        await this.#readTail().catch(() => undefined);
      }
    }
    this.#writing = undefined;
  }

  #chain(taken: readonly Noted[]): Batch {
    let { lastHash, peaks } = this.#tail;
    const entries = taken.map((one): AuditEntry => {
      const entry = { sequence: peaks.count, ...one, prevHash: lastHash };
      const text = canonicalJson(entry);
      lastHash = createHash("sha256").update(text).digest("hex");
      peaks = withLeaf(peaks, text);
      return entry;
    });
    const tail = { ...this.#tail, lastHash, peaks };
    if (!this.#checkpointDue(tail)) return { entries, tail };
    const at = this.#clock.now();
    const signed = {
      checkpoint: `${peaks.count}-${new Date(at).toISOString()}`,
      atSequence: peaks.count - 1,
      merkleRoot: rootOf(peaks),
    };
    const signature = sign(null, Buffer.from(canonicalJson(signed)), this.#privateKey).toString("base64");
    return {
      entries,
      checkpoint: { ...signed, signature },
      tail: { ...tail, checkpointCount: peaks.count, checkpointAt: at },
    };
  }

  #checkpointDue({ peaks, checkpointCount, checkpointAt }: Tail): boolean {
    const since = peaks.count - checkpointCount;
    return (
      since > 0 &&
      (since >= CHECKPOINT_ENTRIES - MAX_BATCH ||
        this.#clock.now() - checkpointAt >= CHECKPOINT_SECONDS * 1_000 - LOOK_MS)
    );
  }

  async #readTail(): Promise<void> {
    try {
      const message = await this.#bus.jsm.direct.getMessage(STREAM, { last_by_subj: SUBJECT });
      if (message === null) return;
      this.#tail = (JSON.parse(message.string()) as Batch).tail;
      this.#streamSeq = message.seq;
    } catch (thrown) {
      if (thrown instanceof Error && /message not found/i.test(thrown.message)) return;
      throw fromJetStream(thrown, "read the audit log");
    }
  }

  /** Checks the chain and the checkpoints of a range; what lies beyond the end is fine (OpenWOP, AuditVerifyResult). */
  async verify(fromSeq: number, toSeq: number): Promise<Json> {
    await this.flush();
    const checkpoints: Checkpoint[] = [];
    const anomalies: Json[] = [];
    let checkpointsValid = true;
    let peaks = NO_PEAKS;
    let lastHash: string | null = null;
    for await (const { entries, checkpoint } of this.#batches()) {
      for (const entry of entries) {
        if (entry.sequence > toSeq) break;
        if (entry.sequence >= fromSeq && entry.prevHash !== lastHash) {
          anomalies.push({
            atSeq: entry.sequence,
            expectedPrevHash: lastHash ?? "none",
            actualPrevHash: entry.prevHash ?? "",
          });
        }
        const text = canonicalJson(entry);
        lastHash = createHash("sha256").update(text).digest("hex");
        peaks = withLeaf(peaks, text);
      }
      if (checkpoint === undefined || checkpoint.atSequence > toSeq) continue;
      if (checkpoint.atSequence < fromSeq) continue;
      const { signature, ...signed } = checkpoint;
      const holds = verify(null, Buffer.from(canonicalJson(signed)), this.#publicKey, Buffer.from(signature, "base64"));
      if (!holds || signed.merkleRoot !== rootOf(peaks)) checkpointsValid = false;
      checkpoints.push(checkpoint);
    }
    const chainValid = anomalies.length === 0 && checkpointsValid;
    return { fromSeq, toSeq, chainValid, checkpointsValid, checkpoints, anomalies };
  }

  async *#batches(): AsyncGenerator<Batch> {
    for await (const message of readStream(this.#bus, STREAM, { subject: SUBJECT }))
      yield JSON.parse(message.string()) as Batch;
  }
}
