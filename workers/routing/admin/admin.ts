/**
 * The admin subjects (BeamLine, RouterAdmin; admin subjects): the key is checked first, errors have upper-case codes, and replies say
 * everything, zeros and empty lists included, since clients on NATS read them without a schema.
 *
 * Beyond the contract, for callers that have more to say than the admin form can: a `policy` with a `version` is a policy document and
 * replaces the stored one whole; reads return the document beside the admin form.
 */
import { requestEndpoint, type UnaryEndpoint } from "../../../bus/endpoint.ts";
import { parseJson } from "../../../bus/call.ts";
import { codecOf, opaque, type JsonObject } from "../../../contracts/codec.ts";
import { BeamlineError, invalidArgument } from "../../../contracts/errors.ts";
import { RouterAdminDefinition } from "../../../contracts/gen/beamline/flow/v1/flow.ts";
import type { CallContext } from "../../../contracts/handlers.ts";
import { routeOf } from "../../../contracts/routes.ts";
import type { AdminCheck } from "./adminkey.ts";
import { isObject } from "../policies/fields.ts";
import { adminHandlers, tenantIn, type AdminPorts } from "./handlers.ts";
import { checkPolicyId, readPolicy } from "../policies/policy.ts";
import type { PolicyStore } from "../policies/policystore.ts";
import { inUpperCase } from "../intake/replies.ts";

type MethodKey = keyof (typeof RouterAdminDefinition)["methods"];
type AnyHandler = (request: unknown, context: CallContext) => Promise<object>;

export function adminEndpoints(ports: AdminPorts, check: AdminCheck): UnaryEndpoint[] {
  const handlers = adminHandlers(ports);
  return Object.entries(RouterAdminDefinition.methods).map(([key, method]): UnaryEndpoint => {
    const route = routeOf(RouterAdminDefinition, method);
    const codec = codecOf(opaque(method.requestType));
    const handler = handlers[key as MethodKey] as unknown as AnyHandler;
    return requestEndpoint(route, async (text, context) => {
      try {
        const body = bodyOf(text, context, check);
        const reply =
          (await documentReply(key, body, context, ports.store)) ?? (await handler(codec.fromJson(body), context));
        return JSON.stringify(withDocuments(key, reply, body, context, ports.store), numbers);
      } catch (thrown) {
        throw inUpperCase(BeamlineError.from(thrown));
      }
    });
  });
}

/** An admin subject of our own, beside the contract's and by the same rules. */
export function adminEndpoint(
  name: string,
  check: AdminCheck,
  answer: (body: JsonObject, context: CallContext) => Promise<object>,
): UnaryEndpoint {
  const subject = `beamline.router.v1.admin.${name}`;
  return requestEndpoint({ subject, dialect: "beamline", timeoutMs: 5_000 }, async (text, context) => {
    try {
      return JSON.stringify(await answer(bodyOf(text, context, check), context), numbers);
    } catch (thrown) {
      throw inUpperCase(BeamlineError.from(thrown));
    }
  });
}

/** The request as JSON. The key is checked even when the rest cannot be read, so that nobody without it learns what is wrong. */
function bodyOf(text: string, context: CallContext, check: AdminCheck): JsonObject {
  let body: unknown;
  let broken: unknown;
  try {
    body = text === "" ? {} : parseJson(text);
    if (!isObject(body)) broken = invalidArgument("body", "must be a JSON object");
  } catch (thrown) {
    broken = thrown;
  }
  check(context.headers, isObject(body) ? body["api_key"] : undefined);
  if (broken !== undefined || !isObject(body)) throw broken;
  return body;
}

/** An upsert of a whole document; undefined when the request is something else. */
async function documentReply(
  key: string,
  body: JsonObject,
  context: CallContext,
  store: PolicyStore,
): Promise<object | undefined> {
  const { policy } = body;
  if (key !== "upsertPolicy" || !isObject(policy) || policy["version"] === undefined) return undefined;
  const { policy_id, tenant_id: _, ...rest } = policy;
  if (typeof policy_id !== "string") throw invalidArgument("policy.policy_id", "must be a string");
  checkPolicyId(policy_id, "policy.policy_id");
  const document = readPolicy(rest, "policy.");
  await store.put(tenantIn(body, context), policy_id, () => document);
  return { ok: true };
}

function withDocuments(key: string, reply: object, body: JsonObject, context: CallContext, store: PolicyStore): object {
  if (key !== "getPolicy" && key !== "listPolicies") return reply;
  const tenant = tenantIn(body, context);
  const document = (policyId: string): object => ({
    policy_id: policyId,
    tenant_id: tenant,
    ...store.own(tenant, policyId)?.document,
  });
  if (key === "getPolicy") return { ...reply, document: document(String(body["policy_id"])) };
  return { ...reply, documents: store.list(tenant).map(({ id }) => document(id)) };
}

/** int64 as a number: every one of these is a time or a count. */
function numbers(_key: string, value: unknown): unknown {
  return typeof value === "bigint" ? Number(value) : value;
}
