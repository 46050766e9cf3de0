/**
 * Messages gather at the server, to be fetched and handled together: each wake of a process costs more than a message does.
 *
 * G1 At rest one message is asked for. When it came, the others have a moment; then all that is there is fetched, and handling begins.
 * G2 A fetch that was filled says that there is more: the next one follows as soon as a quarter of the slots is free, without a moment.
 * G3 A fetch is not always told its end: a consumer whose window of unacknowledged messages is full falls silent. What came waits no longer
 *    than a second for it; acknowledged, it makes room for the rest.
 */
import type { Pull } from "./pull.ts";

export interface GatheringOptions {
  /** How long the first message waits for others, milliseconds. */
  readonly ms: number;
  /** Messages handled at once. */
  readonly slots: number;
  readonly pull: Pick<Pull, "ask" | "asked">;
  /** Slots that are free and not asked for; 0 while nothing may be asked. */
  readonly free: () => number;
}

/** G3, milliseconds. */
const UNANSWERED_MS = 1_000;

export class Gathering {
  readonly #options: GatheringOptions;
  #moment: Promise<void> | undefined;
  #over: (() => void) | undefined;
  #timer: NodeJS.Timeout | undefined;
  #fetching = false;
  #backlog = false;

  constructor(options: GatheringOptions) {
    this.#options = options;
  }

  /** Asks for what may come next. */
  refill(): void {
    const { pull, slots } = this.#options;
    if (this.#moment !== undefined || pull.asked > 0) return;
    const free = this.#options.free();
    if (this.#backlog && free >= slots / 4) {
      void this.#begin();
      this.#fetch();
    } else if (!this.#backlog && free > 0) pull.ask(1);
  }

  /** A message came, and takes a slot: what it has to wait for before it is handled. */
  arrived(): Promise<void> {
    const moment = this.#moment ?? this.#begin();
    if (!this.#fetching) this.#timer ??= setTimeout(() => this.#fetch(), this.#options.ms);
    const filled = this.#fetching ? this.#options.pull.asked === 0 : this.#options.free() === 0;
    if (filled) this.#end(true);
    return moment;
  }

  /** A fetch brought less than it asked for, or nothing more will come: what waits is handled. */
  end(): void {
    this.#end(false);
  }

  #begin(): Promise<void> {
    return (this.#moment = new Promise<void>((resolve) => (this.#over = resolve)));
  }

  #fetch(): void {
    const free = this.#options.free();
    if (free <= 0) return this.end();
    this.#fetching = true;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.end(), UNANSWERED_MS);
    this.#options.pull.ask(free, "now");
  }

  #end(backlog: boolean): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#fetching = false;
    this.#backlog = backlog;
    this.#moment = undefined;
    this.#over?.();
  }
}
