/**
 * A worker thread that answers calls, for work that would hold up the event loop: one message there, one back.
 *
 * A thread that dies fails what it was doing with `unavailable`; the next call starts another one. What nobody waits for any more is not begun: under
 * more than it can do, a thread would else be busy with the past and answer nobody.
 */
import { parentPort, Worker } from "node:worker_threads";
import { BeamlineError, isCode, type Code } from "../../../contracts/errors.ts";

interface Call {
  readonly id: number;
  readonly method: string;
  readonly argument: unknown;
}

/** The call of this id is not wanted any more. */
interface Cancel {
  readonly cancel: number;
}

interface Answer {
  readonly id: number;
  readonly value?: unknown;
  readonly error?: { readonly code: Code; readonly message: string; readonly gone: boolean };
}

interface Waiter {
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: unknown) => void;
}

export class Thread {
  readonly #file: URL;
  readonly #data: unknown;
  readonly #what: string;
  readonly #waiting = new Map<number, Waiter>();
  #worker: Worker | undefined;
  #next = 1;
  #closed = false;

  /** @param what names the thread in errors */
  constructor(file: URL, what: string, data?: unknown) {
    this.#file = file;
    this.#what = what;
    this.#data = data;
  }

  /** One call. Throws what the thread throws, `unavailable` when it dies, `cancelled` when the signal says so. */
  call(method: string, argument: unknown, signal?: AbortSignal): Promise<unknown> {
    if (this.#closed) return Promise.reject(new BeamlineError("unavailable", `${this.#what} is closed`));
    if (signal?.aborted === true) return Promise.reject(cancelled(this.#what));
    const worker = (this.#worker ??= this.#start());
    const id = this.#next++;
    return new Promise((resolve, reject) => {
      const onAbort = (): void => {
        this.#waiting.delete(id);
        worker.postMessage({ cancel: id } satisfies Cancel);
        reject(cancelled(this.#what));
      };
      const done = (): void => signal?.removeEventListener("abort", onAbort);
      this.#waiting.set(id, {
        resolve(value) {
          done();
          resolve(value);
        },
        reject(error) {
          done();
          reject(error);
        },
      });
      signal?.addEventListener("abort", onAbort, { once: true });
      worker.postMessage({ id, method, argument } satisfies Call);
    });
  }

  /** Lets the thread finish what it has been given, then ends it. */
  async close(): Promise<void> {
    if (this.#worker !== undefined && !this.#closed) await this.call("close", undefined).catch(() => undefined);
    this.#closed = true;
    await this.#worker?.terminate();
    this.#worker = undefined;
  }

  #start(): Worker {
    const worker = new Worker(this.#file, { workerData: this.#data });
    worker.unref();
    worker.on("message", ({ id, value, error }: Answer) => {
      const waiter = this.#waiting.get(id);
      this.#waiting.delete(id);
      if (error === undefined) waiter?.resolve(value);
      else if (error.code === "internal")
        waiter?.reject(new BeamlineError("internal", "internal error", { cause: new Error(error.message) }));
      else waiter?.reject(new BeamlineError(error.code, error.message, { details: error.gone ? { gone: true } : {} }));
    });
    const died = (cause: unknown): void => {
      if (this.#worker !== worker) return;
      this.#worker = undefined;
      const error = new BeamlineError("unavailable", `${this.#what} stopped unexpectedly`, { cause });
      for (const waiter of this.#waiting.values()) waiter.reject(error);
      this.#waiting.clear();
    };
    worker.on("error", died);
    worker.on("exit", died);
    return worker;
  }
}

/** In the thread: answers calls one after the other, in the order they came. */
export function answerCalls(methods: Readonly<Record<string, (argument: never) => unknown>>): void {
  const port = parentPort;
  if (port === null) throw new Error("this file runs in a worker thread");
  let last: Promise<void> = Promise.resolve();
  let begun = 0;
  const unwanted = new Set<number>();
  port.on("message", (message: Call | Cancel) => {
    if ("cancel" in message) {
      if (message.cancel > begun) unwanted.add(message.cancel);
      return;
    }
    const { id, method, argument } = message;
    last = last.then(async () => {
      await new Promise((resolve) => setImmediate(resolve)); // what has arrived meanwhile is read first
      begun = id;
      if (unwanted.delete(id)) return;
      try {
        const run = methods[method];
        const value = await run?.(argument as never);
        port.postMessage({ id, value } satisfies Answer);
      } catch (thrown) {
        port.postMessage({ id, error: wire(thrown) } satisfies Answer);
      }
    });
  });
}

function wire(thrown: unknown): NonNullable<Answer["error"]> {
  const message = thrown instanceof Error ? thrown.message : String(thrown);
  if (!(thrown instanceof BeamlineError) || !isCode(thrown.code)) return { code: "internal", message, gone: false };
  return { code: thrown.code, message, gone: thrown.details["gone"] === true };
}

function cancelled(what: string): BeamlineError {
  return new BeamlineError("cancelled", `${what}: the call was cancelled`);
}
