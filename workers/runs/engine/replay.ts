/** What a replay takes from its source instead of the world: answers to its questions; and how it notices that it went another way. */
import { objectOr, sameJson } from "../../../contracts/openwop/json.ts";
import { TERMINAL_EVENTS, type NewEvent, type RunEvent } from "../../../contracts/openwop/log.ts";
import type { NodeState, RunState } from "../../../contracts/openwop/state.ts";

const ANSWERS = new Set(["approval.received", "clarification.resolved", "interrupt.resolved", "node.resumed"]);

/** What an event is always followed by, of the same node: it was decided with it, and is one thing with it. */
const FOLLOWERS: Readonly<Record<string, readonly string[]>> = {
  "node.suspended": ["interrupt.requested"],
  "interrupt.requested": ["approval.requested", "clarification.requested"],
  "approval.received": ["interrupt.resolved"],
  "clarification.resolved": ["interrupt.resolved"],
  "interrupt.resolved": ["node.resumed"],
  "channel.written": ["channel.written", "variable.changed", "node.completed"],
  "variable.changed": ["variable.changed", "node.completed"],
};

/**
 * Where the history of a fork ends: at `fromSeq`, or behind what cannot be told from the event before it. A node that has suspended has
 * asked, an answer that was taken resumes, and what a completed node wrote is not written again. A replay takes no part in pauses.
 */
export function cutAt(source: readonly RunEvent[], fromSeq: number, mode: "replay" | "branch"): number {
  let cut = fromSeq;
  for (;;) {
    const [last, next] = [source[cut - 1], source[cut]];
    if (last === undefined || next === undefined) return cut;
    const follows = next.nodeId === last.nodeId && FOLLOWERS[last.type]?.includes(next.type) === true;
    const resumes = mode === "replay" && last.type === "run.paused" && next.type === "run.resumed";
    if (!follows && !resumes) return cut;
    cut++;
  }
}

/** The answers the source got, from a sequence on, to the question a node has asked in this execution. None when it got none. */
export function recordedAnswers(
  source: readonly RunEvent[],
  { nodeId, executions, interruptId = "" }: NodeState,
  fromSeq: number,
): NewEvent[] {
  let asked = 0;
  const answers: NewEvent[] = [];
  for (const { type, nodeId: of, payload, sequence } of source) {
    if (of !== nodeId) continue;
    if (type === "interrupt.requested") asked++;
    if (asked !== executions || sequence < fromSeq || !ANSWERS.has(type)) continue;
    answers.push({ type, nodeId, payload: { ...objectOr(payload), interruptId } });
    if (type === "node.resumed") return answers;
  }
  // Votes that decided nothing are no answer to go on with.
  return [];
}

/** The first node that came out differently; undefined while both agree. What a source that goes on has not come to yet is no difference. */
export function divergence(sourceRunId: string, source: readonly RunEvent[], state: RunState): NewEvent | undefined {
  const over = TERMINAL_EVENTS.has(source.at(-1)?.type ?? "");
  const ends = source.filter(({ type }) => type === "node.completed" || type === "node.failed");
  const byNode = Map.groupBy(ends, ({ nodeId }) => nodeId);
  for (const own of state.nodes.values()) {
    if (own.status !== "completed" && own.status !== "failed") continue;
    const turns = byNode.get(own.nodeId) ?? [];
    // A node that was refused has ended without a start.
    const turn = Math.max(1, own.iterations);
    const original = turns[turn - 1];
    if (original === undefined && !over) continue;
    const divergenceKind = differenceOf(original, own) ?? (over && turns.length > turn ? "missing" : undefined);
    if (divergenceKind === undefined) continue;
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

function differenceOf(original: RunEvent | undefined, { status, outputs }: NodeState): string | undefined {
  if (original === undefined) return "extra";
  if (original.type !== `node.${status}`) return "type-mismatch";
  const same = status === "failed" || sameJson(lasting(objectOr(original.payload)["outputs"]), lasting(outputs));
  return same ? undefined : "output";
}

/** Outputs without the moments in them. */
function lasting(outputs: unknown): unknown {
  const { decidedAt: _decidedAt, ...rest } = objectOr(outputs);
  return rest;
}
