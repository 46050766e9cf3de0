/** A routing extension as it is registered (BeamLine, extensions pipeline): its record, and how one is read. */
import type { JsonObject } from "../../../contracts/codec.ts";
import { invalidArgument } from "../../../contracts/errors.ts";
import { boolean, choice, integer, known, object, optional, text } from "../policies/fields.ts";

export const extensionTypes = ["pre", "validator", "post", "provider"] as const;
export type ExtensionType = (typeof extensionTypes)[number];

/** A registry record, defaults filled in. */
export interface Extension {
  readonly id: string;
  readonly type: ExtensionType;
  /** Request/reply. Default `beamline.ext.<pre|validate|post>.<id>.v1`. */
  readonly subject: string;
  /** Of one try, milliseconds, 10 to 5000. Default 5000. */
  readonly timeout_ms: number;
  /** Further tries after a timeout, 0 to 3. Default 0. */
  readonly retry: number;
  /** A disabled one is skipped. Default true. */
  readonly enabled: boolean;
  readonly config: Readonly<JsonObject>;
  readonly metadata: Readonly<JsonObject>;
}

/** Extensions a tenant may register (BeamLine, extensions pipeline). */
export const MAX_PER_TENANT = 20;

const idPattern = /^[A-Za-z0-9_-]{1,255}$/;
const subjects = {
  pre: /^beamline\.ext\.pre(\.[A-Za-z0-9_-]+)+$/,
  validator: /^beamline\.ext\.validate(\.[A-Za-z0-9_-]+)+$/,
  post: /^beamline\.ext\.post(\.[A-Za-z0-9_-]+)+$/,
  provider: /^beamline\.provider(\.[A-Za-z0-9_-]+){2}$/,
} as const;
const trees = {
  pre: "beamline.ext.pre",
  validator: "beamline.ext.validate",
  post: "beamline.ext.post",
  provider: "beamline.provider",
} as const;

/** Checks an id: a token of a subject. */
export function checkExtensionId(value: unknown, path: string): string {
  const id = text(value, path, 255);
  if (!idPattern.test(id)) throw invalidArgument(path, "must be letters, digits, dashes and underscores");
  return id;
}

/**
 * A record as it may be stored. `path` is put before every field an error names, dot included. Throws `invalid_argument`. A subject outside the
 * extensions' own tree is refused: the router may publish anywhere, and must not be made to.
 */
export function readExtension(json: unknown, path = ""): Extension {
  const record = object(json, path === "" ? "extension" : path.slice(0, -1));
  known(record, ["id", "type", "subject", "timeout_ms", "retry", "enabled", "config", "metadata"], path);
  const id = checkExtensionId(record["id"], `${path}id`);
  if (record["type"] === undefined) throw invalidArgument(`${path}type`, "is missing");
  const type = choice(record["type"], extensionTypes, `${path}type`);
  const subject =
    record["subject"] === undefined ? `${trees[type]}.${id}.v1` : text(record["subject"], `${path}subject`, 255);
  if (!subjects[type].test(subject) || subject.startsWith("beamline.provider.v1."))
    throw invalidArgument(`${path}subject`, `must be ${trees[type]}.<id>.<version>`);
  optional(record["timeout_ms"], (value) => integer(value, `${path}timeout_ms`, 10, 5_000));
  optional(record["retry"], (value) => integer(value, `${path}retry`, 0, 3));
  optional(record["enabled"], (value) => boolean(value, `${path}enabled`));
  for (const key of ["config", "metadata"]) optional(record[key], (value) => object(value, path + key));
  const { timeout_ms = 5_000, retry = 0, enabled = true, config = {}, metadata = {} } = record;
  return { id, type, subject, timeout_ms, retry, enabled, config, metadata } as Extension;
}
