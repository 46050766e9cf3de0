/**
 * Secrets by reference: an input says `secret:table.key`, the value is put in just before the tool runs, and is cut out of everything that
 * leaves again (aiOS tools, 1.7 secrets: a TOML file with flat keys or one level of tables; it never travels).
 */
import { readFile, stat } from "node:fs/promises";
import { ToolFailure } from "./failure.ts";
import type { Json } from "./tool.ts";

const REFERENCE = /^secret:([\w-]+(?:\.[\w-]+)?)$/;
/** Shorter values would cut harmless text to pieces. */
const SHORTEST_CUT = 4;

export class Secrets {
  readonly #file: string | undefined;
  #values: { readonly mtimeMs: number; readonly byName: ReadonlyMap<string, string> } | undefined;

  constructor(file: string | undefined) {
    this.#file = file;
  }

  /** The input with references replaced, and the values that were put in. Throws `ToolFailure` for a reference to nothing. */
  async resolve(input: Json): Promise<{ readonly input: Json; readonly used: readonly string[] }> {
    if (!JSON.stringify(input).includes("secret:")) return { input, used: [] };
    const used: string[] = [];
    const values = await this.#load();
    const put = (value: unknown): unknown => {
      if (typeof value === "string") {
        const name = REFERENCE.exec(value)?.[1];
        if (name === undefined) return value;
        const secret = values.get(name);
        if (secret === undefined) throw new ToolFailure(`there is no secret ${name}`);
        used.push(secret);
        return secret;
      }
      if (Array.isArray(value)) return value.map(put);
      if (typeof value !== "object" || value === null) return value;
      return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, put(item)]));
    };
    return { input: put(input) as Json, used };
  }

  async #load(): Promise<ReadonlyMap<string, string>> {
    if (this.#file === undefined) throw new ToolFailure("no secrets are configured (BEAMLINE_TOOLS_SECRETS)");
    const info = await stat(this.#file).catch(() => undefined);
    if (info === undefined) throw new ToolFailure("the file of secrets cannot be read");
    if ((info.mode & 0o077) !== 0)
      throw new ToolFailure("the file of secrets may be read by others than its owner; it must have mode 600");
    if (this.#values?.mtimeMs !== info.mtimeMs)
      this.#values = { mtimeMs: info.mtimeMs, byName: parseToml(await readFile(this.#file, "utf8")) };
    return this.#values.byName;
  }
}

/** A text without the given values. */
export function withoutSecrets(text: string, used: readonly string[]): string {
  return used.reduce(
    (cut, secret) =>
      secret.length < SHORTEST_CUT
        ? cut
        : cut.replaceAll(secret, "[REDACTED]").replaceAll(JSON.stringify(secret).slice(1, -1), "[REDACTED]"),
    text,
  );
}

/** Texts of a TOML file by `key` and `table.key`; everything else in it is left out. */
function parseToml(text: string): ReadonlyMap<string, string> {
  const values = new Map<string, string>();
  let table = "";
  for (const line of text.split("\n")) {
    const [, name] = /^\s*\[([\w.-]+)\]\s*(?:#.*)?$/.exec(line) ?? [];
    if (name !== undefined) {
      table = `${name}.`;
      continue;
    }
    const [, key, basic, literal] = /^\s*([\w-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|'([^']*)')\s*(?:#.*)?$/.exec(line) ?? [];
    if (key !== undefined) values.set(table + key, literal ?? (JSON.parse(`"${basic ?? ""}"`) as string));
  }
  return values;
}
