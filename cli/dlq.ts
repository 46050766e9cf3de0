/** `beamline dlq`: look through dead letters, and send them back to where they came from. */
import type { Command } from "commander";
import type { Bus } from "../bus/connect.ts";
import { discardDeadLetters, listDeadLetters, redrive, showDeadLetter, type DeadLetterFilter } from "../bus/redrive.ts";
import { invalidArgument } from "../contracts/errors.ts";
import { stackContext, wholeNumber, type CommandContext } from "./exec.context.ts";

interface FilterOptions {
  readonly subject?: string;
  readonly reason?: string;
  readonly tenant?: string;
  readonly since?: string;
}

/** Adds `dlq` with its subcommands. */
export function dlqCommand(program: Command, context: CommandContext = stackContext): void {
  const dlq = program.command("dlq").description("Dead letters: what could not be handled, and why.");

  filtered(dlq.command("list").description("List dead letters, oldest first."))
    .option("--limit <n>", "at most so many", wholeNumber("--limit", 1), 50)
    .option("--after <seq>", "those after this one", wholeNumber("--after", 0), 0)
    .action(async (options: FilterOptions & { limit: number; after: number }, command: Command) => {
      const out = context.out(command);
      await using stack = await context.connect();
      const { entries, next } = await listDeadLetters(stack.bus, filterOf(options), {
        limit: options.limit,
        after: options.after,
      });
      out.table(
        entries.map(({ seq, timestampMs, reason, letter, subject, tenantId, error }) => ({
          seq,
          time: new Date(timestampMs).toISOString(),
          subject: letter?.original_subject ?? subject,
          tenant: tenantId,
          reason,
          error,
          redrivable: letter !== undefined,
        })),
        "no dead letters",
      );
      if (next !== undefined) out.line(`more: --after ${next}`);
    });

  dlq
    .command("show")
    .description("One dead letter with everything known about it.")
    .argument("<seq>", "its number", wholeNumber("seq", 1))
    .action(async (seq: number, _options: unknown, command: Command) => {
      const out = context.out(command);
      await using stack = await context.connect();
      const { payload, letter, body, subject, timestampMs, reason } = await showDeadLetter(stack.bus, seq);
      const text = payload === undefined ? undefined : Buffer.from(payload).toString("utf8");
      const facts = { seq, subject, time: new Date(timestampMs).toISOString(), reason };
      if (letter === undefined) return out.record({ ...facts, body: Buffer.from(body).toString("utf8") });
      const { message, context: about, ...rest } = letter;
      out.record({ ...facts, ...rest, headers: message.headers, context: about, payload: text });
    });

  filtered(dlq.command("redrive").description("Send dead letters back to the subject they came from."))
    .argument("[seq...]", "their numbers")
    .option("--all", "every one the filters let through")
    .action(async (given: readonly string[], options: FilterOptions & { all?: boolean }, command: Command) => {
      const out = context.out(command);
      await using stack = await context.connect();
      const seqs = options.all === true ? await redrivable(stack.bus, filterOf(options)) : numbersIn(given);
      const results = await redrive(stack.bus, seqs);
      out.table(
        results.map(({ seq, outcome, stored, error }) => ({
          seq,
          outcome,
          stream: stored?.stream ?? "",
          stored: stored?.seq ?? "",
          error: error?.message ?? "",
        })),
        "nothing to redrive",
      );
      if (results.some(({ outcome }) => outcome === "failed")) process.exitCode = 1;
    });

  dlq
    .command("discard")
    .description("Delete dead letters for good.")
    .argument("<seq...>", "their numbers")
    .action(async (given: readonly string[], _options: unknown, command: Command) => {
      const out = context.out(command);
      await using stack = await context.connect();
      const done = await discardDeadLetters(stack.bus, numbersIn(given));
      out.table([...done].map(([seq, there]) => ({ seq, outcome: there ? "discarded" : "gone" })));
    });
}

function filtered(command: Command): Command {
  return command
    .option("-s, --subject <pattern>", "subject of the original message, * and > allowed")
    .option("-r, --reason <reason>", "maxdeliver_exhausted, validation_failed or processing_error")
    .option("-t, --tenant <id>", "of this tenant only")
    .option("--since <time>", "stored at or after this time, ISO 8601");
}

function filterOf({ subject, reason, tenant, since }: FilterOptions): DeadLetterFilter {
  const sinceMs = since === undefined ? undefined : Date.parse(since);
  if (Number.isNaN(sinceMs))
    throw invalidArgument("--since", `wants a time like 2026-01-31T12:00:00Z, not ${since ?? ""}`);
  return {
    ...(subject !== undefined && { subject }),
    ...(reason !== undefined && { reason }),
    ...(tenant !== undefined && { tenantId: tenant }),
    ...(sinceMs !== undefined && { sinceMs }),
  };
}

function numbersIn(given: readonly string[]): number[] {
  if (given.length === 0) throw invalidArgument("seq", "is missing: name the dead letters by number, or give --all");
  return given.map(wholeNumber("seq", 1));
}

/** All of them, page by page, as far as they hold their message. */
async function redrivable(bus: Bus, filter: DeadLetterFilter): Promise<number[]> {
  const seqs: number[] = [];
  let after: number | undefined = 0;
  while (after !== undefined) {
    const page: Awaited<ReturnType<typeof listDeadLetters>> = await listDeadLetters(bus, filter, { after, limit: 500 });
    for (const { seq, letter } of page.entries) if (letter !== undefined) seqs.push(seq);
    after = page.next;
  }
  return seqs;
}
