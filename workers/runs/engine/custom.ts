/**
 * Node types of others, served on a NATS subject: a type `vendor.<org>.<name>` is asked on
 * `beamline.ext.node.vendor.<org>.<name>`. The request is `{typeId, runId, nodeId, inputs, config, attempt, invocationId}`, the answer
 * `{outputs}`, or `{error: {code, message, retryable?}}`.
 */
import { isObject, numberOr, objectOr, textOr } from "../../../contracts/openwop/json.ts";
import { header } from "../../../contracts/headers.ts";
import { completed, failed, type NodeType } from "./nodetype.ts";
import type { Outside } from "../nodes/outside.ts";

const PREFIX = "vendor.";
const SUBJECTS = "beamline.ext.node.";

export function customNodeType(outside: Outside): (typeId: string) => NodeType | undefined {
  return (typeId) => {
    if (!typeId.startsWith(PREFIX)) return undefined;
    return {
      typeId,
      mode: "task",
      async run(call) {
        const { config, inputs, own, node, state } = call;
        const { owner, runId } = state.record;
        // Never a subject of anything else: what a workflow says does not open other doors.
        const subject = `${SUBJECTS}${typeId}`;
        const options = { provider: typeId, idempotent: config["idempotent"] === true };
        const reply = await call.effect(options, (invocationId) =>
          outside.request(
            subject,
            { typeId, runId, nodeId: node.id, inputs, config, attempt: own.attempt, invocationId },
            {
              [header.tenantId]: owner.tenant,
              [header.traceparent]: call.traceparent,
              [header.idempotencyKey]: invocationId,
            },
            numberOr(config["timeoutMs"], 60_000),
            call.signal,
            options,
          ),
        );
        if (isObject(reply["error"])) {
          const { code, message, retryable } = reply["error"];
          return failed(textOr(code, "node_failed"), textOr(message, "the node failed"), {
            retryable: retryable === true,
          });
        }
        return completed(objectOr(reply["outputs"]));
      },
    };
  };
}
