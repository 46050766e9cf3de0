/** What commands print: text for people, JSON with `--json`. */
import type { Command } from "commander";

export interface Output {
  readonly json: boolean;
  line(text: string): void;
  /** A record: `name  value` lines, or the object itself. */
  record(record: Readonly<Record<string, unknown>>): void;
  /** A table whose columns are the keys of the first row; `empty` is said when there is none. */
  table(rows: readonly Readonly<Record<string, unknown>>[], empty?: string): void;
}

// Piped into `head`, there is nobody left to print for.
process.stdout.on("error", (error: NodeJS.ErrnoException) => process.exit(error.code === "EPIPE" ? 0 : 1));

export function outputOf(command: Command): Output {
  const json = command.optsWithGlobals<{ json?: boolean }>().json === true;
  const write = (text: string): void => void process.stdout.write(`${text}\n`);
  return {
    json,
    line(text) {
      if (!json) write(text);
    },
    record(record) {
      if (json) return write(JSON.stringify(record, undefined, 2));
      const width = Math.max(...Object.keys(record).map((key) => key.length));
      for (const [key, value] of Object.entries(record)) write(`${key.padEnd(width)}  ${cell(value)}`);
    },
    table(rows, empty = "nothing") {
      if (json) return write(JSON.stringify(rows, undefined, 2));
      const [first] = rows;
      if (first === undefined) return write(empty);
      const columns = Object.keys(first);
      const lines = [columns, ...rows.map((row) => columns.map((column) => cell(row[column])))];
      const widths = columns.map((_, i) => Math.max(...lines.map((line) => line[i]?.length ?? 0)));
      for (const line of lines)
        write(
          line
            .map((text, i) => text.padEnd(widths[i] ?? 0))
            .join("  ")
            .trimEnd(),
        );
    },
  };
}

function cell(value: unknown): string {
  if (value === undefined || value === null) return "";
  return typeof value === "string" ? value : JSON.stringify(value);
}
