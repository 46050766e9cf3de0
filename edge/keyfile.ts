/** The file with the API keys: read at start, and again whenever it changes, so that keys come and go without a restart. */
import { readFileSync, unwatchFile, watchFile } from "node:fs";
import { BeamlineError } from "../contracts/errors.ts";
import type { KeyRing, StoredKey } from "./auth.ts";

const SETTING = "BEAMLINE_API_KEYS_FILE";
/** How soon a change is seen, milliseconds: the file is looked at, for notices get lost on shared and mounted volumes. */
const LOOK_MS = 1_000;

/** The keys of a file; none without one. Throws `invalid_argument` naming the entry that is not a key, or why there is no list. */
export function readKeys(file: string | undefined): StoredKey[] {
  if (file === undefined) return [];
  let keys: unknown;
  try {
    keys = JSON.parse(readFileSync(file, "utf8"));
  } catch (cause) {
    throw refused(file, "cannot be read as JSON", cause);
  }
  if (!Array.isArray(keys)) throw refused(file, "must hold a JSON array");
  return keys.map((key: unknown, at) => {
    if (!isStoredKey(key))
      throw refused(
        file,
        `[${at}] must be {id, sha256, scopes, tenant?, expires_at_ms?, revoked_at_ms?}, sha256 as 64 lower-case hex digits`,
      );
    return key;
  });
}

/**
 * Keeps a key ring as the file has it. A file that cannot be read changes nothing: `onProblem` hears of it, and the keys stay as they were.
 * Stop it with what it gives back.
 */
export function followKeys(
  file: string | undefined,
  ring: KeyRing,
  told: { onChange(keys: number): void; onProblem(error: BeamlineError): void },
): () => void {
  if (file === undefined) return () => undefined;
  const look = (): void => {
    try {
      ring.replace(readKeys(file));
    } catch (thrown) {
      return told.onProblem(BeamlineError.from(thrown));
    }
    told.onChange(ring.size);
  };
  watchFile(file, { interval: LOOK_MS, persistent: false }, look);
  return () => unwatchFile(file, look);
}

function isStoredKey(key: unknown): key is StoredKey {
  if (typeof key !== "object" || key === null) return false;
  const { id, sha256, scopes, tenant, expires_at_ms, revoked_at_ms } = key as Record<string, unknown>;
  return (
    typeof id === "string" &&
    id !== "" &&
    typeof sha256 === "string" &&
    /^[0-9a-f]{64}$/.test(sha256) &&
    Array.isArray(scopes) &&
    scopes.every((scope) => typeof scope === "string") &&
    (tenant === undefined || typeof tenant === "string") &&
    [expires_at_ms, revoked_at_ms].every((at) => at === undefined || typeof at === "number")
  );
}

function refused(file: string, what: string, cause?: unknown): BeamlineError {
  return new BeamlineError("invalid_argument", `${SETTING} ${file} ${what}`, { field: SETTING, cause });
}
