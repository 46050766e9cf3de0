/**
 * Which workers are there. The edge asks by service discovery, keeps no list of its own, and forgets a worker that has not
 * answered for a while; health per service and readiness follow from it.
 */
import type { Caller } from "../bus/call.ts";
import { presentIn, type Present } from "../bus/discovery.ts";

const ASK_EVERY_MS = 1_000;
const FORGET_AFTER_MS = 3_500;

export class Presence {
  readonly #seen = new Map<string, number>();
  readonly #caller: Caller;
  readonly #inbox: string;
  readonly #timer: NodeJS.Timeout;
  readonly #changed: (present: ReadonlySet<string>) => void;
  #last = "";

  /** `changed` is told the names of all present workers whenever that set changes. */
  constructor(caller: Caller, changed: (present: ReadonlySet<string>) => void) {
    this.#caller = caller;
    this.#changed = changed;
    this.#inbox = caller.inbox.openForEver((message) => this.#heard(presentIn(message)));
    this.#timer = setInterval(() => this.#ask(), ASK_EVERY_MS);
    this.#ask();
  }

  get present(): ReadonlySet<string> {
    const oldest = Date.now() - FORGET_AFTER_MS;
    return new Set([...this.#seen].filter(([, at]) => at >= oldest).map(([name]) => name));
  }

  stop(): void {
    clearInterval(this.#timer);
    this.#caller.inbox.close(this.#inbox);
  }

  #ask(): void {
    if (this.#caller.bus.connected) this.#caller.bus.send("$SRV.PING", "", undefined, this.#inbox);
    this.#tell();
  }

  #heard(worker: Present | undefined): void {
    if (worker === undefined) return;
    this.#seen.set(worker.name, Date.now());
    this.#tell();
  }

  #tell(): void {
    const { present } = this;
    const names = [...present].toSorted().join(" ");
    if (names === this.#last) return;
    this.#last = names;
    this.#changed(present);
  }
}
