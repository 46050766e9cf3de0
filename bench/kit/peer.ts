/** The child's side of a peer: a process of a benchmark that is asked over IPC. It ends when its parent does. */

interface Question {
  readonly id: number;
  readonly what: unknown;
}

/** Says that it is ready, with facts such as its port, and answers questions one by one with what `answer` returns. */
export function servePeer(ready: Readonly<Record<string, unknown>>, answer: (what: never) => Promise<unknown>): void {
  process.once("disconnect", () => process.exit(0));
  process.once("SIGTERM", () => process.exit(0)); // not just gone: a profile is written at exit
  process.on("message", ({ id, what }: Question) => {
    answer(what as never).then(
      (result) => process.send?.({ id, result }),
      (error: unknown) =>
        process.send?.({ id, error: error instanceof Error ? (error.stack ?? error.message) : String(error) }),
    );
  });
  process.send?.({ ready });
}

/** A peer that is asked nothing. */
export function serveOnly(ready: Readonly<Record<string, unknown>>): void {
  servePeer(ready, () => Promise.resolve({}));
}

/** A setting a peer cannot do without. */
export function setting(name: string): string {
  const value = process.env[name];
  if (value === undefined) throw new Error(`${name} is not set`);
  return value;
}
