/**
 * Start and stop as one thought: what is opened downwards is closed upwards, so the order on the page is the shutdown
 * plan.
 *
 * L1 ready turns false before anything closes.
 * L2 intake stops before in-flight work is touched: what was opened last closes first, one at a time.
 * L3 a close may use the time it needs, within one deadline for all of them, so that accepted work is answered before
 *    the bus below it closes.
 * L4 each close gets its turn, even when another one throws or hangs: a little time is kept back for each that waits.
 *
 * `run.ts` adds signals and exit codes; here is what tests and the in-process stack use as well.
 */
import { systemClock } from "./clock.ts";
import type { Clock } from "./clock.ts";
import { createHealth } from "./health.ts";
import type { Health } from "./health.ts";
import { silentLogger } from "./log.ts";
import type { Logger } from "./log.ts";

/** How much time a close has. */
export interface Deadline {
  /** Aborted when the time is up; the next close has its turn then. */
  readonly signal: AbortSignal;
  /** Milliseconds left, 0 at least. */
  remainingMs(): number;
}

export type Close<T> = (resource: T, deadline: Deadline) => unknown;

/** How closing went. */
export interface CloseReport {
  readonly ok: boolean;
  /** What did not close: it threw, or it was still busy when its time was up. */
  readonly failures: readonly { readonly name: string; readonly reason: "threw" | "late"; readonly error?: unknown }[];
  readonly tookMs: number;
}

export interface ScopeOptions {
  /** How long closing everything may take; 10 s when left out. */
  readonly drainMs?: number;
  readonly log?: Logger;
  readonly clock?: Clock;
}

/** A resource could not be opened; the cause is the resource's own error. */
export class OpenError extends Error {
  override readonly name = "OpenError";

  constructor(resource: string, cause: unknown) {
    super(`${resource} could not be opened: ${cause instanceof Error ? cause.message : String(cause)}`, { cause });
  }
}

/** Something was opened in a scope that is already closing; what was opened is closed again. */
export class ScopeClosedError extends Error {
  override readonly name = "ScopeClosedError";

  constructor(resource: string) {
    super(`${resource} was opened while its scope was closing.`);
  }
}

interface Part {
  readonly name: string;
  readonly close: (deadline: Deadline) => unknown;
}

/** The most that is kept back for each close that waits for its turn. */
const RESERVE_MS = 500;

/** What a process, a test or a part of the in-process stack has open. */
export class Scope implements AsyncDisposable {
  readonly health: Health;
  /** Aborted the moment draining starts, after ready has turned false. */
  readonly draining: AbortSignal;
  /** Settles when everything has been closed. */
  readonly closed: Promise<CloseReport>;
  readonly #parts: Part[] = [];
  readonly #drain = new AbortController();
  readonly #done = Promise.withResolvers<CloseReport>();
  readonly #clock: Clock;
  #drainMs: number;
  #log: Logger;

  constructor({ drainMs = 10_000, log = silentLogger, clock = systemClock }: ScopeOptions = {}) {
    this.#drainMs = drainMs;
    this.#log = log;
    this.#clock = clock;
    this.health = createHealth({ clock });
    this.draining = this.#drain.signal;
    this.closed = this.#done.promise;
  }

  /** Settings that are known only once the configuration has been read. */
  configure({ drainMs = this.#drainMs, log = this.#log }: Pick<ScopeOptions, "drainMs" | "log">): void {
    this.#drainMs = drainMs;
    this.#log = log;
  }

  get log(): Logger {
    return this.#log;
  }

  /**
   * Takes charge of something that is open already.
   * @throws {ScopeClosedError} when the scope is closing; the resource is closed at once then
   */
  use<T>(name: string, resource: T, close?: Close<T>): T {
    const part = { name, close: (deadline: Deadline) => close?.(resource, deadline) };
    if (this.draining.aborted) {
      void this.#closePart(part, RESERVE_MS);
      throw new ScopeClosedError(name);
    }
    this.#parts.push(part);
    return resource;
  }

  /**
   * Opens something. The signal tells the opening to give up because the scope is closing.
   * @throws {OpenError} when it cannot be opened, after closing everything opened before it
   * @throws {ScopeClosedError} when the scope began to close meanwhile; the resource is closed in its turn
   */
  async open<T>(name: string, opening: (signal: AbortSignal) => T | Promise<T>, close?: Close<T>): Promise<T> {
    if (this.draining.aborted) throw new ScopeClosedError(name);
    const opened = (async () => opening(this.draining))();
    // In its place from the start: a scope that closes while this is opening waits for it, and closes it too.
    const part = { name, close: async (deadline: Deadline) => closeOpened(opened, deadline, close) };
    this.#parts.push(part);
    let resource: T;
    try {
      resource = await opened;
    } catch (error) {
      if (this.draining.aborted) throw new ScopeClosedError(name);
      this.#parts.splice(this.#parts.indexOf(part), 1);
      await this.close();
      throw new OpenError(name, error);
    }
    if (this.draining.aborted) throw new ScopeClosedError(name);
    this.#log.debug(`${name} opened`);
    return resource;
  }

  /**
   * A scope inside this one, for a part that runs on its own in the same process. Closes in its place, passes on what
   * did not close, and counts as one part of this scope's readiness.
   */
  child(name: string): Scope {
    const inner = new Scope({ drainMs: this.#drainMs, log: this.#log.child({ component: name }), clock: this.#clock });
    this.use(name, inner, async (scope, deadline) => {
      // A little less than there is, so that the report arrives in time.
      const { failures } = await scope.close(deadline.remainingMs() * 0.95);
      if (failures.length > 0) throw new Error(`not closed: ${failures.map((failure) => failure.name).join(", ")}`);
    });
    this.health.add(name, async () => {
      const { ok, parts } = await inner.health.ready();
      const failing = Object.entries(parts).filter(([, part]) => !part.ok);
      return ok
        ? true
        : { ok, detail: failing.map(([part, { detail }]) => `${part}: ${detail ?? "failing"}`).join("; ") };
    });
    return inner;
  }

  /** Everything is open: from now on the process is ready as long as its parts are. Nothing happens once draining. */
  ready(): void {
    if (!this.draining.aborted) this.health.phase = "serving";
  }

  /**
   * Closes everything, last opened first. Safe to call again: the first call's report is everyone's.
   * @param withinMs for a scope inside another: what the outer one grants
   */
  close(withinMs = this.#drainMs): Promise<CloseReport> {
    if (this.draining.aborted) return this.closed;
    this.health.phase = "draining"; // L1
    this.#drain.abort();
    void this.#closeAll(Math.min(withinMs, this.#drainMs)).then(this.#done.resolve);
    return this.closed;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #closeAll(withinMs: number): Promise<CloseReport> {
    const startedMs = this.#clock.monotonic();
    const reserveMs = Math.min(RESERVE_MS, withinMs / 2 / Math.max(1, this.#parts.length));
    const failures: CloseReport["failures"][number][] = [];
    for (let part = this.#parts.pop(); part; part = this.#parts.pop()) {
      const leftMs = withinMs - (this.#clock.monotonic() - startedMs);
      const failure = await this.#closePart(part, leftMs - reserveMs * this.#parts.length);
      if (failure) failures.push(failure);
    }
    this.health.phase = "stopped";
    return { ok: failures.length === 0, failures, tookMs: this.#clock.monotonic() - startedMs };
  }

  /** L4: settles within its time, whatever the part does. */
  async #closePart({ name, close }: Part, turnMs: number): Promise<CloseReport["failures"][number] | undefined> {
    const endsMs = this.#clock.monotonic() + turnMs;
    const [timeUp, answered] = [new AbortController(), new AbortController()];
    const deadline = { signal: timeUp.signal, remainingMs: () => Math.max(0, endsMs - this.#clock.monotonic()) };
    const closing = (async () => close(deadline))().then(
      () => undefined,
      (error: unknown) => ({ name, reason: "threw" as const, error }),
    );
    const late = this.#clock.sleep(Math.max(0, turnMs), answered.signal).then(
      () => ({ name, reason: "late" as const }),
      () => undefined,
    );
    const failure = await Promise.race([closing, late]);
    answered.abort();
    timeUp.abort();
    if (!failure) this.#log.debug(`${name} closed`);
    else
      this.#log.error(failure.reason === "late" ? `${name} did not close in time` : `${name} could not be closed`, {
        ...failure,
      });
    return failure;
  }
}

async function closeOpened<T>(opened: Promise<T>, deadline: Deadline, close: Close<T> | undefined): Promise<void> {
  let resource: T;
  try {
    resource = await opened;
  } catch {
    return; // told to whoever opened it
  }
  await close?.(resource, deadline);
}
