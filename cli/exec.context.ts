/** What commands that talk to the running stack are given: a way onto its bus, and a printer. Tests bring their own. */
import type { Command } from "commander";
import { invalidArgument } from "../contracts/errors.ts";
import { outputOf, type Output } from "./output.ts";
import { connectStack, type Connection } from "./stack.ts";

export interface CommandContext {
  /** A connection as the operator. Closed by the command. Throws `unavailable`. */
  connect(): Promise<Connection>;
  out(command: Command): Output;
}

export const stackContext: CommandContext = { connect: connectStack, out: outputOf };

/** A whole number of at least `min`. Throws `invalid_argument` naming the option. */
export function wholeNumber(name: string, min: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (!Number.isSafeInteger(value) || value < min)
      throw invalidArgument(name, `wants a whole number of at least ${min}, not ${text}`);
    return value;
  };
}
