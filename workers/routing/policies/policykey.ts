/** The key of a policy in its bucket: tenant and policy id, a token each, so that a tenant's policies are one branch. */
import { keyOf, partsOf } from "../../../bus/keys.ts";
import { invalidArgument } from "../../../contracts/errors.ts";

export function keyOfPolicy(tenant: string, id: string): string {
  return keyOf(tenant, id);
}

/** Throws `invalid_argument` for a key that is no policy's. */
export function nameOfKey(key: string): { tenant: string; id: string } {
  const [tenant, id, ...more] = partsOf(key);
  if (tenant === undefined || id === undefined || more.length > 0)
    throw invalidArgument("key", "is not the key of a policy");
  return { tenant, id };
}
