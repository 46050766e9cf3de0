/** What the operations work with. */
import type { Bus } from "../../bus/connect.ts";
import type { Clock } from "../../runtime/clock.ts";
import type { Ids } from "../../runtime/ids.ts";
import type { Logger } from "../../runtime/log.ts";
import type { Artifacts } from "./artifacts.ts";
import type { Audit } from "./audit/audit.ts";
import type { Definitions } from "./definitions.ts";
import type { Limits } from "./engine/due.ts";
import type { Idempotency } from "./idempotency.ts";
import type { Invocations } from "./engine/invocations.ts";
import type { RunLog } from "./log.ts";
import type { RunMetrics } from "./metrics.ts";
import type { NodeType } from "./engine/nodetype.ts";
import type { Records } from "./records.ts";
import type { Tokens } from "./tokens.ts";
import type { Webhooks } from "./webhooks/webhooks.ts";

export interface RunsPorts {
  readonly bus: Bus;
  readonly log: RunLog;
  readonly definitions: Definitions;
  readonly idempotency: Idempotency;
  readonly invocations: Invocations;
  readonly tokens: Tokens;
  readonly audit: Audit;
  readonly webhooks: Webhooks;
  readonly artifacts: Artifacts;
  /** The active run of a scope, for `X-Dedup`. */
  readonly scopes: Records<{ readonly runId: string }>;
  readonly nodeTypes: ReadonlyMap<string, NodeType>;
  readonly metrics: RunMetrics;
  readonly clock: Clock;
  readonly ids: Ids;
  readonly logger: Logger;
  readonly limits: Limits;
  readonly host: Host;
  /** Tells the worker that executes a run that its log has grown. */
  poke(tenant: string, runId: string): void;
}

/** What this host says of itself. */
export interface Host {
  readonly engineVersion: number;
  readonly version: string;
  /** `grpc://host:port`; undefined when gRPC is not reachable. */
  readonly grpcEndpoint: string | undefined;
  /** Fixture workflows that are loaded. */
  readonly fixtures: readonly string[];
  readonly testKeyPrefix: string;
  readonly inflightCap: number;
  readonly retentionDays: number;
  /** How long idempotency keys are remembered, milliseconds. */
  readonly idempotencyMs: number;
  readonly production: boolean;
}
