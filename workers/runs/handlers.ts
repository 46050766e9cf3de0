/** The 17 methods of the engine over gRPC: projections of the operations, which speak REST (OpenWOP, gRPC specifics). */
import type { EngineDefinition } from "../../contracts/gen/openwop/v1/openwop.ts";
import type { Handlers } from "../../contracts/handlers.ts";
import { BeamlineError } from "../../contracts/errors.ts";
import { isObject, objectOr, textOr, type Json } from "../../contracts/openwop/json.ts";
import { askerOf } from "./caller.ts";
import { capabilities } from "./operations/capabilities.ts";
import { bulkCancel, cancelRun, pauseRun, resumeRun } from "./operations/control.ts";
import { forkRun } from "./operations/fork.ts";
import { inspectByToken, resolveByRun, resolveByToken } from "./operations/interrupts.ts";
import { getRun, getWorkflow } from "./operations/read.ts";
import { createRun } from "./operations/start.ts";
import { getArtifact, registerWebhook, unregisterWebhook, verifyAudit } from "./operations/surroundings.ts";
import type { RunsPorts } from "./ports.ts";

export function engineHandlers(ports: RunsPorts): Handlers<typeof EngineDefinition> {
  return {
    async getCapabilities() {
      return { capabilities: objectOr((await capabilities(ports)).body) };
    },

    async getWorkflow({ workflow_id }, context) {
      const { body } = await getWorkflow(ports, askerOf(context), workflow_id);
      return { workflow: objectOr(body) };
    },

    /** An empty field is an absent one, so that both surfaces ask the same thing under the same idempotency key. */
    async createRun({ workflow_id, inputs, configurable, tags, metadata, idempotency_key }, context) {
      const asker = askerOf(context, { idempotencyKey: idempotency_key === "" ? undefined : idempotency_key });
      const body = {
        ...(workflow_id !== "" && { workflowId: workflow_id }),
        ...(inputs !== undefined && { inputs }),
        ...(configurable !== undefined && { configurable }),
        ...(tags.length > 0 && { tags }),
        ...(metadata !== undefined && { metadata }),
      };
      const made = objectOr((await createRun(ports, asker, body, { transport: "grpc" })).body);
      return { run_id: textOr(made["runId"], ""), status: textOr(made["status"], "") };
    },

    async getRun({ run_id }, context) {
      return { snapshot: objectOr((await getRun(ports, askerOf(context), run_id)).body) };
    },

    async cancelRun({ run_id, reason }, context) {
      const { body } = await cancelRun(ports, askerOf(context), run_id, some({ reason }));
      return { run_id, status: textOr(objectOr(body)["status"], "") };
    },

    async bulkCancelRuns({ run_ids, reason }, context) {
      const body = objectOr((await bulkCancel(ports, askerOf(context), { runIds: run_ids, ...some({ reason }) })).body);
      const results = Array.isArray(body["results"]) ? body["results"].filter(isObject) : [];
      return {
        results: results.map((one) => ({
          run_id: textOr(one["runId"], ""),
          ok: one["ok"] === true,
          status: textOr(one["status"], ""),
          ...(isObject(one["error"]) && { error: one["error"] }),
        })),
      };
    },

    /** `from_seq` 0 executes everything again; over gRPC it cannot be left out, so a branch from 0 is possible and a missing one is not. */
    async forkRun({ run_id, from_seq, mode, overlay }, context) {
      const asked = { mode, fromSeq: Number(from_seq), ...(overlay !== undefined && { runOptionsOverlay: overlay }) };
      const body = objectOr((await forkRun(ports, askerOf(context), run_id, asked)).body);
      return { forked_run_id: textOr(body["runId"], ""), status: textOr(body["status"], "") };
    },

    async pauseRun({ run_id, reason, drain_policy }, context) {
      const body = objectOr(
        (await pauseRun(ports, askerOf(context), run_id, some({ reason, drainPolicy: drain_policy }))).body,
      );
      return { run_id, status: textOr(body["status"], ""), paused_at: timeOf(body["pausedAt"]) };
    },

    async resumeRun({ run_id, reason }, context) {
      const body = objectOr((await resumeRun(ports, askerOf(context), run_id, some({ reason }))).body);
      return { run_id, status: textOr(body["status"], ""), resumed_at: timeOf(body["resumedAt"]) };
    },

    async *streamRunEvents() {
      yield* [];
      throw new BeamlineError("unimplemented", "the edge reads events from the log");
    },

    async resolveInterruptByRun({ run_id, node_id, resume_value }, context) {
      const { body } = await resolveByRun(ports, askerOf(context), run_id, node_id, { resumeValue: resume_value });
      return resolved(objectOr(body));
    },

    async resolveInterruptByToken({ token, resume_value }, context) {
      return resolved(
        objectOr((await resolveByToken(ports, askerOf(context), token, { resumeValue: resume_value })).body),
      );
    },

    async inspectInterruptByToken({ token }) {
      return { interrupt: objectOr((await inspectByToken(ports, token)).body) };
    },

    async getArtifact({ run_id, artifact_id }, context) {
      const { contentType, content } = await getArtifact(ports, askerOf(context), run_id, artifact_id);
      return { artifact_id, content_type: contentType, content: Buffer.from(content) };
    },

    async registerWebhook({ url, event_types, secret }, context) {
      const asked = { ...some({ url }), events: event_types, ...some({ secret }) };
      const body = objectOr((await registerWebhook(ports, askerOf(context), asked)).body);
      return { webhook_id: textOr(body["webhookId"], "") };
    },

    async unregisterWebhook({ webhook_id }, context) {
      await unregisterWebhook(ports, askerOf(context), webhook_id, {});
      return {};
    },

    async verifyAuditLog({ from_seq, to_seq }, context) {
      const { body } = await verifyAudit(ports, askerOf(context), { fromSeq: String(from_seq), toSeq: String(to_seq) });
      return { result: objectOr(body) };
    },
  };
}

/** Fields that are set: proto3 cannot tell an empty text from an absent one, REST can. */
function some(fields: Readonly<Record<string, string>>): Json {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== ""));
}

function timeOf(value: unknown): Date {
  return new Date(String(value));
}

function resolved(body: Json): { run_id: string; node_id: string; status: string } {
  return { run_id: textOr(body["runId"], ""), node_id: textOr(body["nodeId"], ""), status: textOr(body["status"], "") };
}
