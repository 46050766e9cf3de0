/** Why an address cannot be listened on: a mistake of its setting, or something that may be over the next time. */
import { BeamlineError } from "../contracts/errors.ts";

/** An address that is not this machine's, a port this user may not have: neither changes by trying again. */
const mistaken = /EADDRNOTAVAIL|EACCES/;

/** `invalid_argument` naming the setting when it is wrong, `unavailable` otherwise: in use, or a name that is not known now. */
export function cannotListen(setting: string, address: string, cause: unknown): BeamlineError {
  const reason = cause instanceof Error ? cause.message : String(cause);
  const code = mistaken.test(reason) ? "invalid_argument" : "unavailable";
  return new BeamlineError(code, `${setting}: cannot listen on ${address}: ${reason}`, { field: setting, cause });
}
