/** The policy a fresh stack decides by, so that the sample request of the contract gets the sample's decision (BeamLine proto README). */
import type { PolicyDocument } from "./policy.ts";
import { SHARED_TENANT, type PolicyStore } from "./policystore.ts";

export const defaultPolicy: PolicyDocument = {
  version: "1.0",
  providers: [{ name: "openai", weight: 100, expected_latency_ms: 250, expected_cost: 0.001 }],
};

/** Creates the shared policy `default` when there is none; what an operator has made of it stays. */
export async function seedDefaultPolicy(store: PolicyStore): Promise<void> {
  await store.put(SHARED_TENANT, "default", (stored) => stored?.document ?? defaultPolicy);
}
