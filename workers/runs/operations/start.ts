/** Starting runs (OpenWOP, `POST /v1/runs`). */
import { BeamlineError } from "../../../contracts/errors.ts";
import { isObject, objectOr, textOr, type Json } from "../../../contracts/openwop/json.ts";
import type { Masking, NewEvent, Parent, RunRecord } from "../../../contracts/openwop/log.ts";
import type { Channel, WorkflowDefinition, WorkflowNode } from "../../../contracts/openwop/workflow.ts";
import { foldEntry } from "../../../contracts/openwop/fold.ts";
import { isTerminal } from "../../../contracts/openwop/snapshot.ts";
import { anything, bodyOf, bounded, invalid, object, oneOf, text, texts } from "../body.ts";
import { isTest, permit, type Answer, type Asker } from "../caller.ts";
import { checkConfigurable } from "../configurable.ts";
import type { Current } from "../definitions.ts";
import type { RunsPorts } from "../ports.ts";
import { channelTriggers } from "../engine/triggers.ts";

const METADATA_BYTES = 50 * 1024;
const METADATA_DEPTH = 16;

export interface CreateOptions {
  /** The header `X-Dedup`. */
  readonly dedup?: string | undefined;
  /** The header `X-Force-Engine-Version`. */
  readonly forceEngineVersion?: string | undefined;
  readonly transport: "rest" | "grpc" | "bus";
}

const members = {
  workflowId: text(128, 1),
  inputs: object,
  tenantId: text(256),
  scopeId: text(256, 1),
  callbackUrl: text(2_048, 1),
  configurable: object,
  tags: texts(100, text(256, 1)),
  metadata: bounded(METADATA_BYTES, METADATA_DEPTH),
  residency: object,
  mode: oneOf("eval"),
  evalSuiteRef: text(256, 1),
  agentId: text(256, 1),
  agentRef: anything,
} as const;

/** Answers 201 with `runId`, `status`, `eventsUrl`, `statusUrl`. A workflow that will fail is accepted all the same. */
export async function createRun(
  ports: RunsPorts,
  asker: Asker,
  given: unknown,
  options: CreateOptions,
): Promise<Answer> {
  permit(asker, "runs:create");
  return ports.idempotency.once(asker, "runs.create", given, async ({ id: runId, again }) => {
    const location = { location: `/v1/runs/${runId}` };
    // Made before, by a call that did not live to tell: whether it could be made today is not asked.
    if (again && (await ports.log.find(asker.tenant, runId)) !== undefined)
      return { status: 201, body: created(asker, runId, "running"), headers: location };
    const body = bodyOf(given, members);
    if (body["mode"] === "eval")
      throw new BeamlineError("capability_not_provided", "evaluation runs are not provided", {
        details: { capability: "eval" },
      });
    if (body["workflowId"] === undefined) throw invalid("workflowId", "is required");
    if (body["tenantId"] !== undefined && body["tenantId"] !== "" && body["tenantId"] !== asker.tenant) {
      throw new BeamlineError("forbidden", "tenantId is not the tenant of the credential", { field: "tenantId" });
    }
    if (isObject(body["residency"]) && Object.keys(body["residency"]).length > 0) {
      throw new BeamlineError("capability_not_provided", "residency is not provided", {
        details: { capability: "residency" },
      });
    }
    const engineVersion = forcedVersion(ports, asker, options.forceEngineVersion);
    const workflowId = textOr(body["workflowId"], "");
    const current = await ports.definitions.current(asker.tenant, workflowId);
    if (current === undefined)
      throw new BeamlineError("workflow_not_found", `there is no workflow ${workflowId}`, {
        field: "workflowId",
      });
    const { definition } = await ports.definitions.graph(current.digest);
    checkRunnable(definition);
    const configurable = objectOr(body["configurable"]);
    checkConfigurable(ports, asker, definition, configurable);
    const inputs = checkInputs(definition, objectOr(body["inputs"]));
    const scopeId = textOr(body["scopeId"], "");
    if (typeof body["callbackUrl"] === "string") await ports.webhooks.expectCallback(body["callbackUrl"]);
    if (options.dedup !== undefined) await claimScope(ports, asker, scopeId, runId, options.dedup);
    const record = recordOf(ports, current, definition, {
      runId,
      tenant: asker.tenant,
      principal: asker.principal,
      inputs,
      configurable,
      tags: (body["tags"] ?? []) as readonly string[],
      metadata: objectOr(body["metadata"]),
      traceparent: asker.traceparent,
      test: isTest(asker),
      engineVersion,
      ...(scopeId !== "" && { scopeId }),
      ...(typeof body["callbackUrl"] === "string" && { callbackUrl: body["callbackUrl"] }),
    });
    await begin(ports, record, options.transport).catch((thrown: unknown) => {
      // The same call was here before and died after this: the run is there.
      if (!(thrown instanceof BeamlineError) || thrown.code !== "aborted") throw thrown;
    });
    ports.audit.note(asker, "run.created", runId, { workflowId: record.workflowId });
    return { status: 201, body: created(asker, runId, "running"), headers: location };
  });
}

export function created(asker: Asker, runId: string, status: string): Json {
  return {
    runId,
    status,
    eventsUrl: `${asker.base}/v1/runs/${runId}/events`,
    statusUrl: `${asker.base}/v1/runs/${runId}`,
  };
}

export interface RunSeed {
  readonly runId: string;
  readonly tenant: string;
  readonly principal: string;
  readonly inputs: Json;
  readonly configurable: Json;
  readonly tags: readonly string[];
  readonly metadata: Json;
  readonly traceparent: string;
  readonly test: boolean;
  readonly engineVersion?: number;
  readonly scopeId?: string;
  readonly callbackUrl?: string;
  readonly parent?: Parent;
}

/** Everything a run has to know for the rest of its life. */
export function recordOf(
  ports: RunsPorts,
  current: Pick<Current, "digest" | "version">,
  definition: WorkflowDefinition,
  seed: RunSeed,
): RunRecord {
  const { tenant, principal, test, engineVersion, ...rest } = seed;
  return {
    ...rest,
    workflowId: definition.id,
    definition: current.digest,
    workflowVersion: current.version,
    owner: { tenant, ...(principal !== "" && { principal }) },
    variables: definition.variables,
    channels: channelsOf(definition),
    ...triggersOf(definition),
    masking: maskingOf(definition),
    ...sensitivePorts(definition),
    ...(test && { test }),
    engineVersion: engineVersion ?? ports.host.engineVersion,
  };
}

/** Writes the first event, which is also the run's first work. Throws `aborted` when the run exists. */
export async function begin(ports: RunsPorts, record: RunRecord, transport: string): Promise<void> {
  const { workflowId, inputs, owner, tags, metadata, engineVersion, parent } = record;
  const payload = {
    workflowId,
    inputs,
    ...(transport === "rest" && { transport }),
    engineVersion: String(engineVersion),
    owner,
    ...(tags.length > 0 && { tags }),
    ...(Object.keys(metadata).length > 0 && { metadata }),
    ...(parent !== undefined && { parentRunId: parent.runId }),
  };
  const started: NewEvent = { type: "run.started", payload };
  const { entry, streamSeq } = await ports.log.create(record, [started]);
  const state = foldEntry(undefined, entry);
  ports.log.keep(owner.tenant, record.runId, { state, streamSeq });
  ports.metrics.created(state);
}

/** Declared channels, and those that nodes write to without a declaration. */
function channelsOf(definition: WorkflowDefinition): Record<string, Channel> {
  const channels: Record<string, Channel> = { ...definition.channels };
  for (const { typeId, config } of definition.nodes) {
    const name = textOr(config["channelName"], "");
    if (typeId !== "core.channelWrite" || name === "" || channels[name] !== undefined) continue;
    const { ttlMs, maxSize } = config;
    channels[name] = {
      reducer: textOr(config["reducer"], "append"),
      ...(typeof ttlMs === "number" && { ttlMs }),
      ...(typeof maxSize === "number" && { maxSize }),
    };
  }
  return channels;
}

function triggersOf(definition: WorkflowDefinition): Pick<RunRecord, "triggers"> {
  const triggers = channelTriggers(definition);
  return triggers.length === 0 ? {} : { triggers };
}

function maskingOf({ metadata }: WorkflowDefinition): Masking {
  const mode = objectOr(metadata["complianceConfig"])["maskingMode"];
  return mode === "omit" || mode === "hash" || mode === "passthrough" ? mode : "mask";
}

/** Output ports that are declared sensitive, and those that repeat what went into a sensitive variable or channel. */
function sensitivePorts(definition: WorkflowDefinition): { readonly sensitivePorts?: Record<string, string[]> } {
  const ports: Record<string, string[]> = {};
  for (const node of definition.nodes) {
    const hidden = new Set(Object.entries(node.outputSensitivity ?? {}).flatMap(([port, hide]) => (hide ? port : [])));
    if (repeatsSensitive(definition, node)) hidden.add("value");
    if (hidden.size > 0) ports[node.id] = [...hidden];
  }
  return Object.keys(ports).length === 0 ? {} : { sensitivePorts: ports };
}

function repeatsSensitive({ variables, channels = {} }: WorkflowDefinition, { typeId, config }: WorkflowNode): boolean {
  if (typeId === "core.channelWrite") return channels[textOr(config["channelName"], "")]?.sensitive === true;
  if (typeId !== "core.setVariable" && typeId !== "core.getVariable") return false;
  const name = textOr(config["name"] ?? config["variableName"], "");
  return variables.some((variable) => variable.name === name && variable.sensitive === true);
}

/** Node types of capabilities this host does not have: refused, never replaced by something else (OpenWOP, core node types). */
export const GATED: Readonly<Record<string, string>> = {
  "core.conversationGate": "conversationPrimitive",
  "core.conformance.mock-agent": "conformance.mockAgent",
};

/** Throws `capability_required` for a node type this host does not provide, `validation_error` for a workflow that is switched off. */
export function checkRunnable({ nodes, status, id }: WorkflowDefinition): void {
  if (status === "inactive" || status === "archived") throw invalid("workflowId", `${id} is ${status}`);
  for (const node of nodes) {
    const requiredCapability = GATED[node.typeId];
    if (requiredCapability === undefined) continue;
    throw new BeamlineError("capability_required", `node ${node.id} needs the capability ${requiredCapability}`, {
      details: { requiredCapability, offendingTypeId: node.typeId, nodeId: node.id },
    });
  }
}

/** Inputs as the variables they become. Throws `validation_error` for a missing or wrong one. Others pass: they are the workflow's affair. */
function checkInputs({ variables }: WorkflowDefinition, inputs: Json): Json {
  for (const { name, type, required, defaultValue } of variables) {
    const value = inputs[name];
    if (value === undefined) {
      if (required === true && defaultValue === undefined) throw invalid(`inputs.${name}`, "is required");
      continue;
    }
    const is = Array.isArray(value) ? "array" : value === null ? "null" : typeof value;
    if (is !== type) throw invalid(`inputs.${name}`, `must be of type ${type}`);
  }
  return inputs;
}

function forcedVersion(ports: RunsPorts, asker: Asker, header: string | undefined): number {
  const { engineVersion } = ports.host;
  if (header === undefined || header === "") return engineVersion;
  if (!isTest(asker))
    throw new BeamlineError("force_engine_version_forbidden", "X-Force-Engine-Version is for test keys");
  const version = Number(header);
  if (!/^\d+$/.test(header) || version > engineVersion + 1) {
    throw new BeamlineError(
      "unsupported_force_engine_version",
      `X-Force-Engine-Version must be from 0 to ${engineVersion + 1}`,
      { field: "X-Force-Engine-Version" },
    );
  }
  return version;
}

/** `X-Dedup: enforce`: one active run per scope. Throws `run_already_active`. */
async function claimScope(
  ports: RunsPorts,
  asker: Asker,
  scopeId: string,
  runId: string,
  dedup: string,
): Promise<void> {
  if (dedup !== "enforce") throw invalid("X-Dedup", "must be enforce");
  if (scopeId === "") throw invalid("scopeId", "is required with X-Dedup");
  for (;;) {
    const kept = await ports.scopes.get(asker.tenant, scopeId);
    const active = kept === undefined ? undefined : await ports.log.find(asker.tenant, kept.value.runId);
    if (kept !== undefined && kept.value.runId !== runId && active !== undefined && !isTerminal(active.state)) {
      throw new BeamlineError("run_already_active", `run ${kept.value.runId} of this scope is active`, {
        details: { activeRunId: kept.value.runId, activeHost: "cloud" },
        retryAfterSeconds: 5,
      });
    }
    if ((await ports.scopes.swap([asker.tenant, scopeId], { runId }, kept?.revision ?? 0)) !== undefined) return;
  }
}
