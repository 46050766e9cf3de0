/**
 * Results of assignments as they come, for clients that wait for one (BeamLine, REST gateway, results stream). One reader of the stream serves all
 * clients of this edge.
 *
 * R1 The reader starts with the results of the last ten minutes, and what it read in that time is remembered: a client that comes late, or
 *    comes back, still gets its result.
 * R2 It runs while somebody listens, and a while longer. When it breaks it starts again after the last result it read.
 */
import type { Bus } from "../../bus/connect.ts";
import { followStream } from "../../bus/follow.ts";
import { BeamlineError } from "../../contracts/errors.ts";
import { readResult, type Result } from "../../contracts/execution/result.ts";
import { execSubject } from "../../contracts/execution/subjects.ts";
import { streams } from "../../contracts/streams.ts";

export interface SeenResult {
  /** Sequence in the stream. */
  readonly seq: number;
  readonly at: number;
  readonly result: Result;
}

export type Listener = (seen: SeenResult) => void;

const REMEMBERED_MS = 10 * 60_000;
const MOST_REMEMBERED = 20_000;
const LINGER_MS = 30_000;
const AGAIN_MS = 1_000;

export class ResultHub {
  readonly #bus: Bus;
  readonly #onTrouble: (error: BeamlineError) => void;
  readonly #listeners = new Set<Listener>();
  #seen: SeenResult[] = [];
  #stop: (() => void) | undefined;
  #linger: NodeJS.Timeout | undefined;

  constructor(bus: Bus, onTrouble: (error: BeamlineError) => void) {
    this.#bus = bus;
    this.#onTrouble = onTrouble;
  }

  /** Tells what is remembered, oldest first, then what comes. Returns how to end it. */
  follow(listener: Listener): () => void {
    clearTimeout(this.#linger);
    for (const seen of this.#seen) listener(seen);
    this.#listeners.add(listener);
    if (this.#stop === undefined) void this.#read();
    return () => {
      this.#listeners.delete(listener);
      if (this.#listeners.size === 0) this.#linger = setTimeout(() => this.close(), LINGER_MS).unref();
    };
  }

  close(): void {
    clearTimeout(this.#linger);
    this.#stop?.();
    this.#stop = undefined;
    this.#seen = [];
  }

  /** R1, R2. Never rejects. */
  async #read(): Promise<void> {
    const reading = new AbortController();
    const { signal } = reading;
    this.#stop = () => reading.abort();
    while (!signal.aborted) {
      try {
        const last = this.#seen.at(-1);
        const from = last === undefined ? new Date(Date.now() - REMEMBERED_MS) : last.seq + 1;
        const options = { subjects: [execSubject.result], from, signal, window: 200 };
        for await (const message of followStream(this.#bus, streams.exec.name, options))
          this.#take(message.seq, message.data, headersOf(message.headers), message.time.getTime());
      } catch (thrown) {
        if (!signal.aborted) this.#onTrouble(BeamlineError.from(thrown));
      }
      if (!signal.aborted) await new Promise((resolve) => setTimeout(resolve, AGAIN_MS).unref());
    }
  }

  #take(seq: number, data: Uint8Array, headers: Readonly<Record<string, string>>, at: number): void {
    let result: Result;
    try {
      result = readResult(data, headers, at).result;
    } catch {
      return; // a dead letter for those who consume results; nothing to show here
    }
    const seen = { seq, at, result };
    this.#seen.push(seen);
    if (this.#seen.length > MOST_REMEMBERED || (this.#seen[0]?.at ?? at) < at - 2 * REMEMBERED_MS)
      this.#seen = this.#seen.slice(-MOST_REMEMBERED / 2).filter((one) => one.at > at - REMEMBERED_MS);
    for (const listener of this.#listeners) listener(seen);
  }
}

interface HeaderMap {
  keys(): string[];
  get(name: string): string;
}

function headersOf(headers: HeaderMap | undefined): Record<string, string> {
  return Object.fromEntries((headers?.keys() ?? []).map((name) => [name, headers?.get(name) ?? ""]));
}
