/** Whose results and acknowledgements are taken (BeamLine, tenant validation). */
import { BeamlineError, invalidArgument } from "../../contracts/errors.ts";

/**
 * Throws `invalid_argument` for a message without a tenant, which no redelivery can mend, and `aborted` for a tenant that is not on the list, which
 * another configuration may take: that one is tried again until it is a dead letter.
 */
export type CheckTenant = (tenant: string) => void;

/** `allowed` undefined takes every tenant. */
export function tenantCheck(allowed: readonly string[] | undefined): CheckTenant {
  const set = allowed === undefined ? undefined : new Set(allowed);
  return (tenant) => {
    if (tenant === "") throw invalidArgument("tenant_id", "is required (tenant_missing)");
    if (!/^[\w.:-]{1,256}$/.test(tenant))
      throw invalidArgument("tenant_id", "is not a tenant id (tenant_invalid_format)");
    if (set !== undefined && !set.has(tenant))
      throw new BeamlineError("aborted", `tenant_id ${tenant} is not on the allow-list (tenant_not_allowed)`, {
        field: "tenant_id",
      });
  };
}
