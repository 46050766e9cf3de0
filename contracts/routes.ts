/**
 * The route table: every method of every contract, read from the generated definitions. Nobody types a subject; what a
 * contract fixes is declared here once, beside the rule that derives all others.
 */
import { services as generated } from "./gen/index.ts";
import { opaque, type AnyMessageType } from "./codec.ts";

/** A method as ts-proto's generic definitions describe it. */
export interface MethodDefinition {
  readonly name: string;
  readonly requestType: AnyMessageType;
  readonly requestStream: boolean;
  readonly responseType: AnyMessageType;
  readonly responseStream: boolean;
}

export interface ServiceDefinition {
  readonly name: string;
  readonly fullName: string;
  readonly methods: Readonly<Record<string, MethodDefinition>>;
}

/** How a call travels: one reply, a streamed reply over the caller's inbox, or events read from a log by the edge itself. */
export type RouteKind = "request" | "stream" | "events";

/** Whose words an error reply is written in. */
export type Dialect = "beamline" | "aios" | "openwop";

export interface Route {
  /** gRPC path, `/aios.memory.MemoryService/PushEvent`. */
  readonly path: string;
  readonly service: ServiceDefinition;
  readonly method: MethodDefinition;
  readonly kind: RouteKind;
  /** NATS subject of the request: versioned package and method in snake_case. */
  readonly subject: string;
  /** The worker that serves it; also its queue group. */
  readonly worker: string;
  readonly dialect: Dialect;
  /** How long a caller waits when it brings no deadline, in milliseconds. */
  readonly timeoutMs: number;
  /** Where the request message carries its tenant, if it does; a path in its own field names. */
  readonly tenantField: string | undefined;
}

const DEFAULT_TIMEOUT_MS = 30_000;

/** The gateways of BeamLine wait 5 s for the router (BeamLine, limits). */
const ROUTER_TIMEOUT_MS = 5_000;
const STREAM_TIMEOUT_MS = 15 * 60_000;

/** Who serves a service, and what its contract fixes. One row per service; a service without one does not start. */
const owners: Readonly<Record<string, { worker: string; prefix?: string; timeoutMs?: number }>> = {
  "beamline.flow.v1.Router": { worker: "routing", prefix: "beamline.router.v1", timeoutMs: ROUTER_TIMEOUT_MS },
  "beamline.flow.v1.RouterAdmin": {
    worker: "routing",
    prefix: "beamline.router.v1.admin",
    timeoutMs: ROUTER_TIMEOUT_MS,
  },
  "beamline.provider.v1.Provider": { worker: "inference", timeoutMs: 120_000 },
  "aios.tools.ToolRegistry": { worker: "tools", timeoutMs: 300_000 },
  "aios.memory.MemoryService": { worker: "memory" },
  "aios.orchestrator.Orchestrator": { worker: "orchestrator" },
  "aios.agent.Agent": { worker: "orchestrator", timeoutMs: 300_000 },
  "aios.runtime.AIRuntime": { worker: "inference", timeoutMs: 300_000 },
  "aios.api_gateway.ApiGateway": { worker: "inference", timeoutMs: 300_000 },
  "openwop.v1.Engine": { worker: "runs" },
};

/** Subjects and kinds a contract fixes for single methods. */
const fixed: Readonly<Record<string, Partial<Pick<Route, "subject" | "kind" | "timeoutMs" | "tenantField">>>> = {
  "beamline.flow.v1.Router/Decide": { tenantField: "message.tenant_id" },
  "beamline.flow.v1.Router/GetBackpressureStatus": { subject: "beamline.router.v1.status.backpressure" },
  "beamline.provider.v1.Provider/InvokeStream": { subject: "beamline.provider.v1.invoke.stream" },
  "openwop.v1.Engine/StreamRunEvents": { kind: "events" },
};

export function routeOf(service: ServiceDefinition, method: MethodDefinition): Route {
  const owner = owners[service.fullName];
  if (owner === undefined) throw new Error(`no worker is named for service ${service.fullName}`);
  const own = fixed[`${service.fullName}/${method.name}`] ?? {};
  const kind = own.kind ?? (method.responseStream ? "stream" : "request");
  return {
    path: `/${service.fullName}/${method.name}`,
    service,
    method,
    kind,
    subject: own.subject ?? `${owner.prefix ?? versioned(packageOf(service))}.${snake(method.name)}`,
    worker: owner.worker,
    dialect: dialectOf(service),
    timeoutMs: own.timeoutMs ?? (kind === "request" ? (owner.timeoutMs ?? DEFAULT_TIMEOUT_MS) : STREAM_TIMEOUT_MS),
    tenantField:
      own.tenantField ??
      ("tenant_id" in (opaque(method.requestType).fromPartial({}) as object) ? "tenant_id" : undefined),
  };
}

export const services: readonly ServiceDefinition[] = generated;

/** Every route of every service, in the order of the generated index. */
export const routes: readonly Route[] = services.flatMap((service) =>
  Object.values(service.methods).map((method) => routeOf(service, method)),
);

/** The routes of one service by method key (`pushEvent`). */
export function routesOf<S extends ServiceDefinition>(service: S): { readonly [K in keyof S["methods"]]: Route } {
  return Object.fromEntries(
    Object.entries(service.methods).map(([key, method]) => [key, routeOf(service, method)]),
  ) as { readonly [K in keyof S["methods"]]: Route };
}

function packageOf(service: ServiceDefinition): string {
  return service.fullName.slice(0, service.fullName.lastIndexOf("."));
}

/** `aios.memory` → `aios.memory.v1`; a package that names its version keeps it. */
function versioned(name: string): string {
  return /\.v\d+$/.test(name) ? name : `${name}.v1`;
}

/** `GetAIStatus` → `get_ai_status`. */
export function snake(name: string): string {
  return name
    .replaceAll(/([A-Z]+)([A-Z][a-z])/g, "$1_$2")
    .replaceAll(/([a-z0-9])([A-Z])/g, "$1_$2")
    .toLowerCase();
}

function dialectOf(service: ServiceDefinition): Dialect {
  if (service.fullName.startsWith("openwop.")) return "openwop";
  return service.fullName.startsWith("beamline.") ? "beamline" : "aios";
}
