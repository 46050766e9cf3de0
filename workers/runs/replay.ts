/** What a replay takes from its source instead of the world: answers to its questions; and how it notices that it went another way. */
import { objectOr, sameJson } from "../../contracts/openwop/json.ts";
import type { NewEvent, RunEvent } from "../../contracts/openwop/log.ts";
import type { RunState } from "../../contracts/openwop/state.ts";

const ANSWERS = new Set(["approval.received", "clarification.resolved", "interrupt.resolved", "node.resumed"]);

/** The answers the source got to the question a node has just asked for the `turn`th time (from 1). None when it got none. */
export function recordedAnswers(
  source: readonly RunEvent[],
  nodeId: string,
  turn: number,
  interruptId: string,
): NewEvent[] {
  let asked = 0;
  const answers: NewEvent[] = [];
  for (const { type, nodeId: of, payload } of source) {
    if (of !== nodeId) continue;
    if (type === "interrupt.requested") asked++;
    if (asked !== turn || !ANSWERS.has(type)) continue;
    answers.push({ type, nodeId, payload: { ...objectOr(payload), interruptId } });
    if (type === "node.resumed") return answers;
  }
  // Votes that decided nothing are no answer to go on with.
  return [];
}

/** The first node that came out differently; undefined while both agree. */
export function divergence(sourceRunId: string, source: readonly RunEvent[], state: RunState): NewEvent | undefined {
  const ended = new Map(
    source
      .filter(({ type }) => type === "node.completed" || type === "node.failed")
      .map((event) => [event.nodeId, event]),
  );
  for (const own of state.nodes.values()) {
    if (own.status !== "completed" && own.status !== "failed") continue;
    const original = ended.get(own.nodeId);
    const agrees =
      original?.type === `node.${own.status}` &&
      (own.status === "failed" || sameJson(lasting(objectOr(original.payload)["outputs"]), lasting(own.outputs)));
    if (agrees) continue;
    const divergenceKind =
      original === undefined ? "extra" : original.type === `node.${own.status}` ? "output" : "type-mismatch";
    return {
      type: "replay.diverged",
      payload: {
        sourceRunId,
        atSequence: own.settledSeq,
        divergenceKind,
        ...(original !== undefined && { originalEventId: original.eventId }),
        divergencePoint: own.nodeId,
      },
    };
  }
  return undefined;
}

/** Outputs without the moments in them. */
function lasting(outputs: unknown): unknown {
  const { decidedAt: _decidedAt, ...rest } = objectOr(outputs);
  return rest;
}
