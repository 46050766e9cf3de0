/** gRPC metadata to bus headers: who calls, for which tenant, as part of which trace, until when. */
import type { Metadata } from "@grpc/grpc-js";
import { BeamlineError } from "../contracts/errors.ts";
import { header, type Headers } from "../contracts/headers.ts";
import type { Route } from "../contracts/routes.ts";
import { acceptTraceparent } from "../runtime/trace.ts";
import { authenticate, bearerOf, LOCAL, type AuthPolicy, type Principal } from "./auth.ts";

const tenantPattern = /^[\w.:-]{1,256}$/;

/** What the edge needs to know of a service to authenticate its callers. */
export interface CallerRules {
  readonly ownKey: boolean;
  readonly always: boolean;
  /** Takes no credential at all: what is sent is not even looked at. */
  readonly open: boolean;
}

/** OpenWOP's methods without a bearer: discovery, and those whose request carries the credential (OpenWOP, scopes). */
const openMethods: ReadonlySet<string> = new Set([
  "GetCapabilities",
  "ResolveInterruptByToken",
  "InspectInterruptByToken",
]);

export function rulesOf(route: Route): CallerRules {
  return {
    ownKey: route.service.fullName === "beamline.flow.v1.RouterAdmin",
    always: route.dialect === "openwop",
    open: route.dialect === "openwop" && openMethods.has(route.method.name),
  };
}

/** Headers of a call. Throws `unauthenticated`, `permission_denied` when the named tenant is not the credential's, `invalid_argument`. */
export function headersOf(
  metadata: Metadata,
  route: Route,
  rules: CallerRules,
  policy: AuthPolicy,
  deadline: number,
): Headers {
  const given = metadata.getMap();
  const headers: Record<string, string> = {
    [header.traceparent]: acceptTraceparent(text(given["traceparent"])),
    [header.deadline]: String(deadline),
  };
  if (!rules.open) identify(headers, given, route, rules, policy);
  copy(headers, header.correlationId, text(given["x-correlation-id"]) ?? text(given["correlation-id"]));
  copy(headers, header.traceId, text(given["trace_id"]) ?? text(given["x-trace-id"]));
  copy(headers, header.spanId, text(given["span_id"]) ?? text(given["x-span-id"]));
  copy(headers, header.tracestate, text(given["tracestate"]));
  copy(headers, header.idempotencyKey, text(given["idempotency-key"]) ?? text(given["idempotency_key"]));
  copy(headers, header.taskId, text(given["task-id"]));
  return headers;
}

/** Adds who calls, for which tenant. */
function identify(
  headers: Record<string, string>,
  given: Readonly<Record<string, string | Buffer>>,
  route: Route,
  rules: CallerRules,
  policy: AuthPolicy,
): void {
  const authorization = text(given["authorization"]);
  const principal = authenticate(policy, authorization, rules);
  const tenant = tenantOf(principal, text(given["x-tenant-id"]), route);
  if (tenant !== undefined) headers[header.tenantId] = tenant;
  if (principal.id !== "") {
    headers[header.principal] = principal.id;
    headers[header.scopes] = principal.scopes.join(" ");
  }
  if (rules.ownKey) copy(headers, header.apiKey, text(given["x-api-key"]) ?? bearerOf(authorization));
}

/** The tenant of the credential wins; a caller bound to none may name one; a request that has its own field speaks for itself. */
function tenantOf(principal: Principal, named: string | undefined, route: Route): string | undefined {
  if (named !== undefined && !tenantPattern.test(named)) {
    throw new BeamlineError(
      "invalid_argument",
      "x-tenant-id must be 1 to 256 letters, digits, dots, colons, dashes or underscores",
      { field: "x-tenant-id" },
    );
  }
  if (principal.tenant !== undefined) {
    if (named !== undefined && named !== principal.tenant)
      throw new BeamlineError("permission_denied", "x-tenant-id is not the tenant of the credential", {
        field: "x-tenant-id",
      });
    return principal.tenant;
  }
  if (named !== undefined) return named;
  return route.tenantField === undefined && principal === LOCAL ? "default" : undefined;
}

function text(value: string | Buffer | undefined): string | undefined {
  const trimmed = typeof value === "string" ? value.trim() : "";
  return trimmed === "" ? undefined : trimmed;
}

function copy(headers: Record<string, string>, name: string, value: string | undefined): void {
  if (value !== undefined) headers[name] = value;
}
