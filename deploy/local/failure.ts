/**
 * Why the local stack could not do what it was asked. The message is written for the person at the terminal:
 * what happened, and what to do about it. Print it without a stack.
 */
export class LocalStackError extends Error {
  override readonly name = "LocalStackError";
}

/** The text of anything thrown. */
export function reasonOf(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : String(thrown);
}
