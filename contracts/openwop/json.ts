/** Plain JSON data, and looking into it. */
export type Json = Readonly<Record<string, unknown>>;

export function isObject(value: unknown): value is Json {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** The value when it is an object, else an empty one. */
export function objectOr(value: unknown): Json {
  return isObject(value) ? value : {};
}

export function textOr(value: unknown, fallback: string): string {
  return typeof value === "string" && value !== "" ? value : fallback;
}

export function numberOr(value: unknown, fallback: number): number {
  return typeof value === "number" && Number.isFinite(value) ? value : fallback;
}

/** The value at a dotted path (`output.items.0.name`); undefined where it leads nowhere. Own properties only. */
export function at(root: unknown, path: string): unknown {
  let value: unknown = root;
  for (const part of path.split(".")) {
    if (typeof value !== "object" || value === null || !Object.hasOwn(value, part)) return undefined;
    value = (value as Record<string, unknown>)[part];
  }
  return value;
}

/**
 * How deep JSON may nest that comes from outside. Clients of gRPC stop at a hundred nested messages, and an object in a Struct is three: what
 * one surface takes, the other must be able to show.
 */
export const MAX_NESTING = 30;

/** Whether a value nests deeper than so many levels; no deeper is looked. */
export function isDeeper(value: unknown, levels = MAX_NESTING): boolean {
  if (typeof value !== "object" || value === null) return false;
  return levels <= 0 || Object.values(value).some((member) => isDeeper(member, levels - 1));
}

/** Whether two JSON values are the same, whatever the order of keys. */
export function sameJson(one: unknown, other: unknown): boolean {
  return one === other || canonicalJson(one) === canonicalJson(other);
}

/**
 * JSON with sorted keys and no spaces (RFC 8785 for what our documents hold: its number and string forms are those of
 * `JSON.stringify`). Members that are undefined are left out.
 */
export function canonicalJson(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map((item) => canonicalJson(item ?? null)).join(",")}]`;
  if (!isObject(value)) return JSON.stringify(value) ?? "null";
  const members: string[] = [];
  // By UTF-16 code units, as RFC 8785 asks: the default order of sort.
  for (const key of Object.keys(value).sort()) {
    const member = value[key];
    if (member !== undefined) members.push(`${JSON.stringify(key)}:${canonicalJson(member)}`);
  }
  return `{${members.join(",")}}`;
}
