/**
 * Web pages: a listener on this machine serves programs without credentials as its local user, and a page in that user's browser reaches it too. What
 * a browser says of the page decides (`Origin`), and the name the page was reached by, which may have been made to lead here (`Host`).
 */
import { isIP } from "node:net";
import { BeamlineError } from "../contracts/errors.ts";
import { LOCAL, type Principal } from "./auth.ts";

interface Named {
  readonly origin?: string | undefined;
  readonly host?: string | undefined;
}

/** Whether a request comes from a page that this listener did not serve itself. */
export function isForeign({ origin, host }: Named): boolean {
  return origin !== undefined && URL.parse(origin)?.host !== host;
}

/** Throws `permission_denied` for a page that comes without a credential, and is not of an address or localhost here. */
export function refusePages(named: Named, principal: Principal): void {
  if (named.origin === undefined || principal !== LOCAL) return;
  if (isForeign(named))
    throw new BeamlineError("permission_denied", "origin is not this server, and no credential was given");
  if (!isFixed(named.host ?? ""))
    throw new BeamlineError("permission_denied", "host is not an address or localhost, and no credential was given");
}

/** Whether a `Host` is an address or localhost, which no name server can lead elsewhere. */
function isFixed(host: string): boolean {
  const name = URL.parse(`http://${host}`)?.hostname ?? "";
  return isIP(name.replace(/^\[(.*)\]$/, "$1")) !== 0 || name === "localhost" || name.endsWith(".localhost");
}
