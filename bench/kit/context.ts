/** What a case is given, and the end of everything it started. */
import type { BenchCase, BenchContext, Row } from "../case.ts";
import { productionFlags } from "./flags.ts";
import { startPeer } from "./processes.ts";
import { alternate, rowOf } from "./rounds.ts";
import { openServers, openStack } from "./stack.ts";

export interface RunOptions {
  readonly rounds: number;
  readonly say: (line: string) => void;
  /** Aborted when the run is to end before it is done. */
  readonly signal: AbortSignal;
}

/** Runs one case. Whatever happens, nothing it started is left when this settles. Throws `stopped` when it was stopped. */
export async function runCase(one: BenchCase, { rounds, say, signal }: RunOptions): Promise<Row[]> {
  const ending = new Ending(say);
  const defer = (close: () => unknown): void => ending.add(close);
  const context: BenchContext = {
    rounds,
    say,
    defer,
    servers: (options) => openServers(defer, options?.syncInterval),
    stack: (options) => openStack(defer, options),
    async peer(file, options = {}) {
      const peer = await startPeer(file, options.env ?? {}, options.flags ?? productionFlags);
      defer(() => peer.stop());
      return peer;
    },
    async compare(comparison) {
      say(comparison.measure);
      return rowOf(comparison, await alternate([comparison.over, comparison.under], rounds, say));
    },
    alternate(what, sides) {
      say(what);
      return alternate(sides, rounds, say);
    },
  };
  const stopped = new Promise<never>((_, reject) => {
    signal.addEventListener("abort", () => reject(new Error("stopped")), { once: true });
  });
  const running = one.run(context);
  running.catch(() => undefined); // once stopped, nobody else hears of it
  try {
    return await Promise.race([running, stopped]);
  } finally {
    await ending.run();
  }
}

/** What is to be closed, last first. What is opened after the end is closed at once. */
class Ending {
  readonly #closers: (() => unknown)[] = [];
  readonly #say: (line: string) => void;
  #over = false;

  constructor(say: (line: string) => void) {
    this.#say = say;
  }

  add(close: () => unknown): void {
    if (this.#over) void this.#close(close);
    else this.#closers.push(close);
  }

  async run(): Promise<void> {
    this.#over = true;
    for (const close of this.#closers.toReversed()) await this.#close(close);
  }

  async #close(close: () => unknown): Promise<void> {
    try {
      await close();
    } catch (thrown) {
      this.#say(`  while ending: ${String(thrown)}`);
    }
  }
}
