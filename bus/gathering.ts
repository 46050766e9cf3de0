/** A moment in which messages gather before they are handled together: each wake of a process costs more than a message does. */
export class Gathering {
  readonly #ms: number;
  #moment: Promise<void> | undefined;
  #over: (() => void) | undefined;
  #timer: NodeJS.Timeout | undefined;
  #stopped = false;

  /** How long the first of them waits, milliseconds; 0 for not at all. */
  constructor(ms: number) {
    this.#ms = ms;
  }

  /** The moment that is running, or a new one; undefined when there is nothing to wait for. */
  get moment(): Promise<void> | undefined {
    if (this.#ms <= 0 || this.#stopped) return undefined;
    return (this.#moment ??= new Promise<void>((resolve) => {
      this.#over = resolve;
      this.#timer = setTimeout(() => this.end(), this.#ms);
    }));
  }

  /** Ends the moment that is running before its time. */
  end(): void {
    clearTimeout(this.#timer);
    this.#moment = undefined;
    this.#over?.();
  }

  /** Ends it, and there is none any more. */
  stop(): void {
    this.#stopped = true;
    this.end();
  }
}
