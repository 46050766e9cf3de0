/** Both surfaces in the same small language, so that a scenario is written once and run over each. */
import type { Metadata } from "@grpc/grpc-js";
import { isObject } from "../../contracts/openwop/json.ts";
import { fieldsOf } from "../kit/wire.ts";
import { bearer, KEYS, type Surfaces } from "./host.ts";

// oxlint-disable-next-line typescript/no-explicit-any
type Body = any;

/** An answer: the body on success, the error envelope otherwise. */
export interface Reply {
  readonly ok: boolean;
  /** HTTP status, or the gRPC status number. */
  readonly status: number;
  readonly body: Body;
}

export interface Surface {
  readonly name: "rest" | "grpc";
  create(body: object, options?: { readonly key?: string; readonly idempotencyKey?: string }): Promise<Reply>;
  get(runId: string, key?: string): Promise<Reply>;
  workflow(id: string, key?: string): Promise<Reply>;
  cancel(runId: string, reason?: string, key?: string): Promise<Reply>;
  bulkCancel(runIds: readonly string[]): Promise<Reply>;
  fork(runId: string, mode: string, fromSeq: number, overlay?: object): Promise<Reply>;
  pause(runId: string, drainPolicy?: string, idempotencyKey?: string): Promise<Reply>;
  resume(runId: string): Promise<Reply>;
  resolve(runId: string, nodeId: string, resumeValue: unknown, key?: string): Promise<Reply>;
  resolveToken(token: string, resumeValue: unknown): Promise<Reply>;
  inspectToken(token: string): Promise<Reply>;
  artifact(runId: string, artifactId: string, key?: string): Promise<Reply>;
  registerWebhook(body: {
    readonly url?: string;
    readonly events?: readonly string[];
    readonly secret?: string;
  }): Promise<Reply>;
  unregisterWebhook(id: string): Promise<Reply>;
  verifyAudit(fromSeq: number, toSeq: number): Promise<Reply>;
  capabilities(): Promise<Reply>;
  /** Events of a run in modes, to its end: the types. */
  stream(runId: string, modes: readonly string[]): Promise<Reply>;
}

export function restSurface(host: Pick<Surfaces, "rest" | "base">): Surface {
  const call = async (...args: Parameters<Surfaces["rest"]>): Promise<Reply> => {
    const { status, body } = await host.rest(...args);
    return { ok: status < 300, status, body };
  };
  const keyed = (idempotencyKey: string | undefined): Record<string, string> =>
    idempotencyKey === undefined ? {} : { "idempotency-key": idempotencyKey };
  return {
    name: "rest",
    create: (body, { key, idempotencyKey } = {}) => call("POST", "/v1/runs", body, keyed(idempotencyKey), key),
    get: (runId, key) => call("GET", `/v1/runs/${runId}`, undefined, {}, key),
    workflow: (id, key) => call("GET", `/v1/workflows/${id}`, undefined, {}, key),
    cancel: (runId, reason, key) =>
      call("POST", `/v1/runs/${runId}/cancel`, reason === undefined ? undefined : { reason }, {}, key),
    bulkCancel: (runIds) => call("POST", "/v1/runs:bulk-cancel", { runIds }),
    fork: (runId, mode, fromSeq, runOptionsOverlay) =>
      call("POST", `/v1/runs/${runId}:fork`, {
        mode,
        fromSeq,
        ...(runOptionsOverlay !== undefined && { runOptionsOverlay }),
      }),
    pause: (runId, drainPolicy, idempotencyKey) =>
      call("POST", `/v1/runs/${runId}:pause`, drainPolicy === undefined ? {} : { drainPolicy }, keyed(idempotencyKey)),
    resume: (runId) => call("POST", `/v1/runs/${runId}:resume`, {}),
    resolve: (runId, nodeId, resumeValue, key) =>
      call("POST", `/v1/runs/${runId}/interrupts/${nodeId}`, { resumeValue }, {}, key),
    resolveToken: (token, resumeValue) => call("POST", `/v1/interrupts/${token}`, { resumeValue }, {}, ""),
    inspectToken: (token) => call("GET", `/v1/interrupts/${token}`, undefined, {}, ""),
    artifact: (runId, artifactId, key) => call("GET", `/v1/runs/${runId}/artifacts/${artifactId}`, undefined, {}, key),
    registerWebhook: (body) => call("POST", "/v1/webhooks", body),
    unregisterWebhook: (id) => call("DELETE", `/v1/webhooks/${id}`),
    verifyAudit: (fromSeq, toSeq) => call("GET", `/v1/audit/verify?fromSeq=${fromSeq}&toSeq=${toSeq}`),
    capabilities: () => call("GET", "/.well-known/openwop", undefined, {}, ""),
    stream: async (runId, modes) => {
      const response = await fetch(`${host.base}/v1/runs/${runId}/events?streamMode=${modes.join(",")}`, {
        headers: bearer().metadata,
      });
      const text = await response.text();
      if (response.status !== 200) return { ok: false, status: response.status, body: JSON.parse(text) };
      return { ok: true, status: 200, body: [...text.matchAll(/^event: (.*)$/gm)].map(([, type]) => type) };
    },
  };
}

export function grpcSurface({ grpc }: Pick<Surfaces, "grpc">): Surface {
  const call = async (
    run: () => Promise<unknown>,
    shape: (reply: Body) => unknown = (reply) => reply,
  ): Promise<Reply> => {
    try {
      return { ok: true, status: 0, body: shape(await run()) };
    } catch (thrown) {
      const { code, metadata } = thrown as { code: number; metadata: Metadata };
      return { ok: false, status: code, body: envelopeOf(metadata) };
    }
  };
  const as = (key: string = KEYS.full, idempotencyKey?: string): { metadata: Record<string, string> } => ({
    metadata: {
      ...(key === "" ? {} : bearer(key).metadata),
      ...(idempotencyKey !== undefined && { "idempotency-key": idempotencyKey }),
    },
  });
  return {
    name: "grpc",
    create: (body, { key, idempotencyKey } = {}) => {
      const { workflowId, ...rest } = body as Body;
      return call(
        () =>
          grpc.call(
            "createRun",
            {
              workflow_id: workflowId,
              ...rest,
              ...(idempotencyKey !== undefined && { idempotency_key: idempotencyKey }),
            },
            as(key),
          ),
        ({ run_id, status }) => ({ runId: run_id, status }),
      );
    },
    get: (runId, key) =>
      call(
        () => grpc.call("getRun", { run_id: runId }, as(key)),
        ({ snapshot }) => snapshot,
      ),
    workflow: (id, key) =>
      call(
        () => grpc.call("getWorkflow", { workflow_id: id }, as(key)),
        ({ workflow }) => workflow,
      ),
    cancel: (runId, reason, key) =>
      call(
        () => grpc.call("cancelRun", { run_id: runId, reason: reason ?? "" }, as(key)),
        ({ run_id, status }) => ({ runId: run_id, status }),
      ),
    bulkCancel: (runIds) =>
      call(
        () => grpc.call("bulkCancelRuns", { run_ids: [...runIds] }, as()),
        ({ results }) => ({
          results: results.map((one: Body) => ({
            runId: one.run_id,
            ok: one.ok,
            ...(one.status !== "" && { status: one.status }),
            ...(one.error !== undefined && { error: one.error }),
          })),
        }),
      ),
    fork: (runId, mode, fromSeq, overlay) =>
      call(
        () =>
          grpc.call(
            "forkRun",
            { run_id: runId, mode, from_seq: BigInt(fromSeq), ...(overlay !== undefined && { overlay }) },
            as(),
          ),
        ({ forked_run_id, status }) => ({ runId: forked_run_id, status }),
      ),
    pause: (runId, drainPolicy, idempotencyKey) =>
      call(
        () => grpc.call("pauseRun", { run_id: runId, drain_policy: drainPolicy ?? "" }, as(KEYS.full, idempotencyKey)),
        ({ run_id, status, paused_at }) => ({ runId: run_id, status, pausedAt: paused_at }),
      ),
    resume: (runId) =>
      call(
        () => grpc.call("resumeRun", { run_id: runId }, as()),
        ({ run_id, status, resumed_at }) => ({ runId: run_id, status, resumedAt: resumed_at }),
      ),
    resolve: (runId, nodeId, resumeValue, key) =>
      call(
        () =>
          grpc.call(
            "resolveInterruptByRun",
            { run_id: runId, node_id: nodeId, ...(isObject(resumeValue) && { resume_value: resumeValue }) },
            as(key),
          ),
        answered,
      ),
    resolveToken: (token, resumeValue) =>
      call(
        () =>
          grpc.call(
            "resolveInterruptByToken",
            { token, ...(isObject(resumeValue) && { resume_value: resumeValue }) },
            as(""),
          ),
        answered,
      ),
    inspectToken: (token) =>
      call(
        () => grpc.call("inspectInterruptByToken", { token }, as("")),
        ({ interrupt }) => interrupt,
      ),
    artifact: (runId, artifactId, key) =>
      call(() => grpc.call("getArtifact", { run_id: runId, artifact_id: artifactId }, as(key))),
    registerWebhook: ({ url, events, secret }) =>
      call(
        () =>
          grpc.call(
            "registerWebhook",
            { url: url ?? "", event_types: [...(events ?? [])], secret: secret ?? "" },
            as(),
          ),
        ({ webhook_id }) => ({ webhookId: webhook_id }),
      ),
    unregisterWebhook: (id) => call(() => grpc.call("unregisterWebhook", { webhook_id: id }, as())),
    verifyAudit: (fromSeq, toSeq) =>
      call(
        () => grpc.call("verifyAuditLog", { from_seq: BigInt(fromSeq), to_seq: BigInt(toSeq) }, as()),
        ({ result }) => result,
      ),
    capabilities: () =>
      call(
        () => grpc.call("getCapabilities", {}, as("")),
        ({ capabilities }) => capabilities,
      ),
    stream: (runId, modes) =>
      call(async () => {
        const types: string[] = [];
        const request = { run_id: runId, last_sequence: -1n, stream_modes: [...modes] };
        for await (const { type } of grpc.stream("streamRunEvents", request, as())) types.push(type);
        return types;
      }),
  };
}

function answered({ run_id, node_id, status }: Body): Body {
  return { runId: run_id, nodeId: node_id, status };
}

/** The envelope in `grpc-status-details-bin`: a google.rpc.Status whose details hold it as an Any. */
export function envelopeOf(metadata: Metadata): Body {
  const [bytes] = metadata.get("grpc-status-details-bin");
  if (!Buffer.isBuffer(bytes)) return undefined;
  for (const [field, value] of fieldsOf(bytes)) {
    if (field !== 3) continue;
    const any = new Map(fieldsOf(value));
    if (any.get(1)?.toString("utf8") === "openwop.dev/spec/v1/ErrorEnvelope")
      return JSON.parse(any.get(2)?.toString("utf8") ?? "null");
  }
  return undefined;
}
