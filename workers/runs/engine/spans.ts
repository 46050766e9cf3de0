/** Attributes of spans (OpenWOP, observability). Made for sampled calls alone. */
import { objectOr, textOr } from "../../../contracts/openwop/json.ts";
import type { RunRecord } from "../../../contracts/openwop/log.ts";
import type { NodeState, RunState } from "../../../contracts/openwop/state.ts";
import type { WorkflowDefinition } from "../../../contracts/openwop/workflow.ts";
import type { Attributes } from "../../../runtime/trace.ts";

/** What every span of a run says. */
export function baseAttributes({ runId, workflowId, owner, scopeId }: RunRecord): Attributes {
  return {
    "openwop.run_id": runId,
    "openwop.workflow_id": workflowId,
    "openwop.protocol_version": "1.0",
    "openwop.tenant_id": owner.tenant,
    ...(scopeId !== undefined && { "openwop.scope_id": scopeId }),
  };
}

/** Of `openwop.run`. Metadata that is a text, a number or a truth is shown; what is deeper is not. */
export function runAttributes(record: RunRecord, { metadata }: WorkflowDefinition): Attributes {
  const { parent, fork, tags } = record;
  const shown = Object.entries(record.metadata).filter(
    ([, value]) => typeof value === "string" || typeof value === "number" || typeof value === "boolean",
  );
  const sensitive = record.variables.filter((one) => one.sensitive === true).map(({ name }) => name);
  const complianceClass = textOr(objectOr(metadata)["complianceClass"], "");
  return {
    ...baseAttributes(record),
    ...(tags.length > 0 && { "openwop.run.tags": tags.join(",") }),
    ...Object.fromEntries(shown.map(([key, value]) => [`openwop.run.metadata.${key}`, value as string])),
    ...(parent !== undefined && {
      "openwop.parent.run_id": parent.runId,
      "openwop.parent.workflow_id": parent.workflowId,
      "openwop.parent.node_id": parent.nodeId,
    }),
    ...(fork !== undefined && {
      "openwop.replay.source_run_id": fork.sourceRunId,
      "openwop.replay.from_seq": fork.fromSeq,
      "openwop.replay.mode": fork.mode,
    }),
    ...(complianceClass !== "" && { "openwop.compliance_class": complianceClass }),
    "openwop.pii_present": sensitive.length > 0 || (complianceClass !== "" && complianceClass !== "public"),
    ...(sensitive.length > 0 && { "openwop.sensitive_fields": sensitive.join(",") }),
  };
}

/** Of `openwop.run`, when it is put down: what it cost so far. */
export function costAttributes({ usage }: RunState): Attributes {
  if (usage === undefined) return {};
  return {
    "openwop.cost.usd": usage.usd,
    "openwop.cost.tokens.input": usage.input,
    "openwop.cost.tokens.output": usage.output,
    "openwop.cost.provider": usage.provider,
    "openwop.cost.model": usage.model,
  };
}

/** Of `openwop.node.<typeId>` and its attempts. */
export function nodeAttributes(record: RunRecord, own: NodeState): Attributes {
  return {
    ...baseAttributes(record),
    "openwop.node_id": own.nodeId,
    "openwop.node_type": own.typeId,
    "openwop.node_attempt": own.attempt,
    "openwop.event_seq": own.startedSeq,
  };
}

export function capAttributes(kind: string, limit: unknown, observed: unknown): Attributes {
  return { "openwop.cap_kind": kind, "openwop.cap_limit": Number(limit), "openwop.cap_observed": Number(observed) };
}
