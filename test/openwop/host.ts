/** A host for OpenWOP tests: workers and edge, and a client per surface that speaks the same small language. */
import { Caller } from "../../bus/call.ts";
import { EngineDefinition } from "../../contracts/gen/openwop/v1/openwop.ts";
import type { RunEvent } from "../../contracts/openwop/log.ts";
import { KeyRing, sha256, type StoredKey } from "../../edge/auth.ts";
import { GrpcEdge } from "../../edge/grpc.ts";
import { openwopEdge } from "../../edge/openwop/index.ts";
import { systemClock } from "../../runtime/clock.ts";
import { httpServer } from "../../runtime/http.ts";
import { startRunsBed, type RunsBed } from "../../workers/runs/testbed.ts";
import { grpcClient, type GrpcClient } from "../kit/grpc.ts";
import { until } from "../kit/until.ts";

export const KEYS = {
  full: "hk_test_full",
  other: "hk_test_other_tenant",
  low: "hk_test_low_scope",
  live: "hk_live_full",
  old: "hk_test_expired",
  gone: "hk_test_revoked",
} as const;

const stored: readonly StoredKey[] = [
  { id: "tester", sha256: sha256(KEYS.full), tenant: "acme", scopes: ["*", "openwop:test"] },
  { id: "stranger", sha256: sha256(KEYS.other), tenant: "other", scopes: ["*", "openwop:test"] },
  { id: "reader", sha256: sha256(KEYS.low), tenant: "acme", scopes: ["runs:read", "manifest:read"] },
  { id: "tester", sha256: sha256(KEYS.old), tenant: "acme", scopes: ["*"], expires_at_ms: 1 },
  { id: "tester", sha256: sha256(KEYS.gone), tenant: "acme", scopes: ["*"], revoked_at_ms: 1 },
  { id: "live", sha256: sha256(KEYS.live), tenant: "acme", scopes: ["*"] },
];

export interface Got {
  readonly status: number;
  // oxlint-disable-next-line typescript/no-explicit-any
  readonly body: any;
  readonly headers: Headers;
}

/** An edge as its clients see it. */
export interface Surfaces {
  readonly base: string;
  readonly grpcAddress: string;
  readonly grpc: GrpcClient<typeof EngineDefinition>;
  rest(
    this: void,
    method: string,
    path: string,
    body?: unknown,
    headers?: Readonly<Record<string, string>>,
    key?: string,
  ): Promise<Got>;
}

export interface Host extends Surfaces, AsyncDisposable {
  readonly bed: RunsBed;
  /** Starts a run; its id. */
  start(workflowId: string, more?: object): Promise<string>;
  /** Waits for a status; the snapshot. */
  reaches(runId: string, ...statuses: readonly string[]): Promise<Got["body"]>;
  events(runId: string): Promise<RunEvent[]>;
  /** Another edge, with limits and keys of its own. */
  listen(own: {
    readonly inflightCap?: number;
    readonly ratePerSecond?: number;
    readonly keys?: readonly StoredKey[];
  }): Promise<Surfaces>;
}

/** `write` takes the log lines of the workers, debug and up. */
export async function startHost(
  env: Readonly<Record<string, string>> = {},
  workers = 1,
  write?: (line: string) => void,
): Promise<Host> {
  const bed = await startRunsBed(env, workers, undefined, write);
  const caller = new Caller(await bed.nats.connect("edge", "edge"));
  const edges: AsyncDisposable[] = [];
  const listen: Host["listen"] = async (own) => {
    const edge = await openEdge(caller, own);
    edges.push(edge);
    return edge;
  };
  const { base, grpcAddress, grpc, rest } = await listen({});
  return {
    bed,
    base,
    grpcAddress,
    grpc,
    rest,
    listen,
    async start(workflowId, more = {}) {
      const { status, body } = await rest("POST", "/v1/runs", { workflowId, ...more });
      if (status !== 201) throw new Error(`create answered ${status} ${JSON.stringify(body)}`);
      return body.runId as string;
    },
    reaches: (runId, ...statuses) =>
      until(
        async () => {
          const { body } = await rest("GET", `/v1/runs/${runId}`);
          if (statuses.includes(body.status)) return body;
          throw new Error(`the run is ${JSON.stringify(body.status)} ${JSON.stringify(body.error)}`);
        },
        `status ${statuses.join(" or ")}`,
      ),
    async events(runId) {
      return (await rest("GET", `/v1/runs/${runId}/events/poll?lastSequence=-1&timeout=1`)).body.events as RunEvent[];
    },
    async [Symbol.asyncDispose]() {
      for (const edge of edges) await edge[Symbol.asyncDispose]();
      await bed[Symbol.asyncDispose]();
    },
  };
}

async function openEdge(
  caller: Caller,
  { inflightCap = 512, ratePerSecond = 0, keys = stored }: Parameters<Host["listen"]>[0],
): Promise<Surfaces & AsyncDisposable> {
  const auth = { keys: new KeyRing(keys), allowAnonymous: false };
  const edge = openwopEdge({ caller, auth, inflightCap, ratePerSecond, now: () => systemClock.now() });
  const app = httpServer();
  edge.routes(app);
  const base = await app.listen({ host: "127.0.0.1", port: 0 });
  const grpcEdge = await GrpcEdge.open(
    {
      address: "127.0.0.1:0",
      maxMessageBytes: 16 * 1024 * 1024,
      keepaliveMs: 60_000,
      keepaliveTimeoutMs: 20_000,
      maxConnectionAgeMs: 0,
      maxConnectionAgeGraceMs: 0,
    },
    { caller, auth, events: new Map(edge.events), admit: edge.admit },
  );
  const grpcAddress = `127.0.0.1:${grpcEdge.port}`;
  const grpc = grpcClient(EngineDefinition, grpcAddress);
  return {
    base,
    grpcAddress,
    grpc,
    async rest(method, path, body, headers = {}, key = KEYS.full) {
      const response = await fetch(`${base}${path}`, {
        method,
        redirect: "manual",
        headers: {
          ...(key !== "" && { authorization: `Bearer ${key}` }),
          ...(body !== undefined && { "content-type": "application/json" }),
          ...headers,
        },
        ...(body !== undefined && { body: typeof body === "string" ? body : JSON.stringify(body) }),
      });
      const text = await response.text();
      return { status: response.status, body: text === "" ? undefined : JSON.parse(text), headers: response.headers };
    },
    async [Symbol.asyncDispose]() {
      grpc[Symbol.dispose]();
      await grpcEdge.stop(Date.now() + 500);
      await app.close();
    },
  };
}

/** Metadata of a key. */
export function bearer(key: string = KEYS.full): { metadata: Record<string, string> } {
  return { metadata: { authorization: `Bearer ${key}` } };
}
