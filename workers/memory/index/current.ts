/**
 * Whether an index that is this worker's own has what every worker wrote: asked before a search, so that it finds what was acknowledged before it.
 *
 * U1 A record is in when the tail has passed it, or when a call of this worker has put it there, whichever is first.
 * U2 The server is asked after the search has come, never before: searches that come together share one question.
 */
import type { Clock } from "../../../runtime/clock.ts";
import type { Ahead, Sent, Watch } from "../log.ts";

/** When there is no answer, or the tail begins anew: how long until it is asked again, milliseconds. */
const AGAIN_MS = 100;

export class Current implements Watch {
  readonly #clock: Clock;
  #look: (() => Promise<Ahead>) | undefined;
  /** Last record that has come to the tail. */
  #arrived = 0;
  #sent: Sent = { consumer: "", count: 0 };
  /** Records that have come to the tail and are not in yet. */
  readonly #open = new Set<number>();
  /** Records that calls have put in before they came to the tail. */
  readonly #early = new Set<number>();
  #news = Promise.withResolvers<void>();
  #asking: Promise<Ahead> | undefined;
  #next: Promise<Ahead> | undefined;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  begin(after: number, look: () => Promise<Ahead>): void {
    this.#look = look;
    this.#arrived = after;
    this.#open.clear();
    this.#tell();
  }

  arrived(seq: number, sent: Sent): void {
    this.#arrived = seq;
    this.#sent = sent;
    if (!this.#early.delete(seq)) this.#open.add(seq);
    this.#tell();
  }

  /** A call has put a record in. */
  put(seq: number): void {
    if (seq > this.#arrived) this.#early.add(seq);
    else if (this.#open.delete(seq)) this.#tell();
  }

  /** The tail has put in everything up to this record. */
  passed(seq: number): void {
    for (const set of [this.#open, this.#early]) for (const one of set) if (one <= seq) set.delete(one);
    this.#tell();
  }

  /** Resolves when everything that was in the log when it was called is in, or when the signal says so. */
  async reached(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const news = this.#news.promise;
      const ahead = await this.#ask().catch(() => undefined);
      if (ahead?.pending === 0 && this.#hasCome(ahead.sent)) {
        const last = this.#arrived;
        while (!signal.aborted && this.#open.values().some((seq) => seq <= last)) await this.#news.promise;
        return;
      }
      const again = this.#clock.sleep(AGAIN_MS, signal).catch(() => undefined);
      await (ahead === undefined ? again : Promise.race([news, again]));
    }
  }

  /** What the server has sent may be still on its way. */
  #hasCome({ consumer, count }: Sent): boolean {
    return count === 0 || (this.#sent.consumer === consumer && this.#sent.count >= count);
  }

  /** U2. Undefined while nobody follows the log. */
  #ask(): Promise<Ahead | undefined> {
    const look = this.#look;
    if (look === undefined) return Promise.resolve(undefined);
    if (this.#asking === undefined) {
      this.#asking = look().finally(() => (this.#asking = undefined));
      return this.#asking;
    }
    const again = (): Promise<Ahead> => {
      this.#next = undefined;
      return (this.#asking ??= look().finally(() => (this.#asking = undefined)));
    };
    this.#next ??= this.#asking.then(again, again);
    return this.#next;
  }

  #tell(): void {
    this.#news.resolve();
    this.#news = Promise.withResolvers();
  }
}
