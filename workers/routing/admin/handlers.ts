/** RouterAdmin, one function per RPC (BeamLine, admin messages). The key is checked before any of them runs (admin.ts). */
import type { JsonObject } from "../../../contracts/codec.ts";
import { BeamlineError, invalidArgument } from "../../../contracts/errors.ts";
import type {
  ExtensionHealth,
  CircuitBreakerState,
  PipelineComplexity,
  RouterAdminDefinition,
  UpsertPolicyRequest,
} from "../../../contracts/gen/beamline/flow/v1/flow.ts";
import type { CallContext, Handlers } from "../../../contracts/handlers.ts";
import { header } from "../../../contracts/headers.ts";
import { fromAdmin, toAdmin } from "../policies/adminpolicy.ts";
import { complexityOf } from "../extensions/complexity.ts";
import type { Policy } from "../policies/compile.ts";
import { decide, type DecidePorts } from "../choice/decide.ts";
import { optionalText } from "../policies/fields.ts";
import { checkPolicyId } from "../policies/policy.ts";
import { notFound, SHARED_TENANT, type PolicyStore } from "../policies/policystore.ts";

/** Extensions as they have behaved so far, by id. */
export interface ExtensionStates {
  health(): Readonly<Record<string, ExtensionHealth>>;
  circuits(): Readonly<Record<string, CircuitBreakerState>>;
}

export interface AdminPorts extends DecidePorts {
  readonly store: PolicyStore;
  readonly extensions: ExtensionStates;
}

export function adminHandlers({ store, extensions, ...ports }: AdminPorts): Handlers<typeof RouterAdminDefinition> {
  const startedAt = ports.now();
  return {
    /** Idempotent: the same policy twice is one revision. */
    async upsertPolicy(request, context) {
      const tenant = tenantOf(request, context);
      const policy = policyIn(request);
      await store.put(tenant, policy.policy_id, (stored) => fromAdmin(policy, stored?.document));
      return { ok: true };
    },

    async deletePolicy(request, context) {
      const tenant = tenantOf(request, context);
      await store.delete(tenant, named(request));
      return { ok: true };
    },

    async getPolicy(request, context) {
      const { id, document } = own(store, tenantOf(request, context), named(request));
      return { policy: toAdmin(id, document) };
    },

    async listPolicies(request, context) {
      return { policies: store.list(tenantOf(request, context)).map(({ id, document }) => toAdmin(id, document)) };
    },

    async getCheckpointStatus() {
      return { status: { current_cp: "CP1-baseline", cp2_plus_allowed: false, updated_at_ms: BigInt(startedAt) } };
    },

    async getValidatorsHealth() {
      const timestamp_ms = BigInt(ports.now());
      return {
        validators: [
          { name: "grpc_health", status: "serving", timestamp_ms, details: "" },
          { name: "policy_store", status: "serving", timestamp_ms, details: `${store.size} policies` },
        ],
      };
    },

    async getExtensionHealth() {
      return { health: { ...extensions.health() } };
    },

    async getCircuitBreakerStates() {
      return { states: { ...extensions.circuits() } };
    },

    /** By the policy alone: no extension is called, no turn taken, nothing remembered. */
    async dryRunPipeline(request, context) {
      const tenant = tenantOf(request, context);
      if (request.payload.length === 0) throw invalidArgument("payload", "must not be empty");
      const policy = usable(store, tenant, named(request));
      const payload = request.payload.toString("utf8");
      const { decision } = decide(policy, { tenant, context: {} }, ports, { dry: true });
      const { provider_id, reason, priority } = decision;
      return {
        ok: true,
        result: {
          decision: { provider_id, reason, priority },
          executed_extensions: skipped(policy),
          final_payload: jsonOr(payload),
        },
      };
    },

    async getPipelineComplexity(request, context) {
      const policy = usable(store, tenantOf(request, context), named(request));
      const complexity: PipelineComplexity = complexityOf(policy.document);
      return { ...complexity, complexity };
    },
  };
}

const tenantPattern = /^[\w.:-]{1,256}$/;

/** The tenant of an admin call: metadata before body. Whoever holds the key and names no tenant in metadata may name the shared one. */
function tenantOf({ tenant_id }: { readonly tenant_id: string }, { headers }: Pick<CallContext, "headers">): string {
  const tenant = headers[header.tenantId] || tenant_id;
  if (tenant === "") throw new BeamlineError("invalid_argument", "missing tenant_id", { field: "tenant_id" });
  if (tenant === SHARED_TENANT && headers[header.tenantId] === undefined) return tenant;
  if (!tenantPattern.test(tenant))
    throw invalidArgument("tenant_id", "must be 1 to 256 letters, digits, dots, colons, dashes or underscores");
  return tenant;
}

/** The same for a request that is JSON still. */
export function tenantIn(body: JsonObject, context: Pick<CallContext, "headers">): string {
  return tenantOf({ tenant_id: optionalText(body["tenant_id"], "tenant_id") }, context);
}

function policyIn({ policy }: UpsertPolicyRequest): NonNullable<UpsertPolicyRequest["policy"]> {
  if (policy === undefined) throw invalidArgument("policy", "is missing");
  return policy;
}

function named({ policy_id }: { readonly policy_id: string }): string {
  checkPolicyId(policy_id, "policy_id");
  return policy_id;
}

function own(store: PolicyStore, tenant: string, policyId: string): Policy {
  const policy = store.own(tenant, policyId);
  if (policy === undefined) throw notFound(tenant, policyId);
  return policy;
}

/** The policy a decision of the tenant would use, the shared one included. */
function usable(store: PolicyStore, tenant: string, policyId: string): Policy {
  const policy = store.find(tenant, policyId);
  if (policy === undefined) throw notFound(tenant, policyId);
  return policy;
}

function skipped({ document }: Policy): { type: string; id: string; status: string }[] {
  const items = (type: string, list: readonly { readonly id: string }[] = []) =>
    list.map(({ id }) => ({ type, id, status: "skipped" }));
  return [...items("pre", document.pre), ...items("validator", document.validators), ...items("post", document.post)];
}

/** The JSON value a text stands for, else the text. */
function jsonOr(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return text;
  }
}
