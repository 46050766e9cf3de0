/** Reading runs and workflows. */
import { BeamlineError } from "../../../contracts/errors.ts";
import { isObject, objectOr, sameJson, type Json } from "../../../contracts/openwop/json.ts";
import type { RunEvent } from "../../../contracts/openwop/log.ts";
import { isTerminal, openInterrupt, questionOf, snapshotOf } from "../../../contracts/openwop/snapshot.ts";
import type { Interrupt, RunState } from "../../../contracts/openwop/state.ts";
import { invalid } from "../body.ts";
import { bytesOf, expectFits, largestAnswer } from "../answersize.ts";
import { permit, type Answer, type Asker } from "../caller.ts";
import type { RunsPorts } from "../ports.ts";
import { TOKEN_LIFE_MS } from "../tokens.ts";

const MAX_DEPTH = 32;

/** `GET /v1/workflows/{id}`: the definition as it was registered. */
export async function getWorkflow({ definitions }: RunsPorts, asker: Asker, workflowId: string): Promise<Answer> {
  permit(asker, "manifest:read");
  const current = await definitions.current(asker.tenant, workflowId);
  if (current === undefined) throw new BeamlineError("workflow_not_found", `there is no workflow ${workflowId}`);
  return { status: 200, body: (await definitions.graph(current.digest)).definition };
}

/** `GET /v1/runs/{id}`: the snapshot, with the token of an open question and the status of children that wait. */
export async function getRun(ports: RunsPorts, asker: Asker, runId: string): Promise<Answer> {
  permit(asker, "runs:read");
  const { state } = await ports.log.get(asker.tenant, runId);
  const { body, settled } = await shown(ports, asker, state, 0);
  expectFits("snapshot", bytesOf(body), largestAnswer(ports.bus));
  // What a child adds has no sequence of its own, so only a run without active children has a validator.
  return { status: 200, body, ...(settled && { headers: { etag: `"${runId}-${state.sequence}"` } }) };
}

/** The snapshot as it is told, and whether nothing but the run itself can change it. */
export async function shown(
  ports: RunsPorts,
  asker: Asker,
  state: RunState,
  depth: number,
): Promise<{ body: Json; settled: boolean }> {
  const body: Record<string, unknown> = { ...snapshotOf(state) };
  let settled = true;
  const children = [...state.children.values()];
  if (children.length > 0 && depth < MAX_DEPTH) {
    const now = await Promise.all(children.map(({ runId }) => ports.log.find(asker.tenant, runId)));
    const snapshots = await Promise.all(
      now.map(async (held) =>
        held === undefined ? undefined : (await shown(ports, asker, held.state, depth + 1)).body,
      ),
    );
    body["childRuns"] = children.map(({ runId, status }, at) => ({
      runId,
      status: snapshots[at]?.["status"] ?? status,
    }));
    settled = isTerminal(state);
    // A run whose only activity is a child that waits, waits with it.
    const waiting = snapshots.find(
      (child) => typeof child?.["status"] === "string" && child["status"].startsWith("waiting-"),
    );
    if (body["status"] === "running" && waiting !== undefined) {
      body["status"] = waiting["status"];
      body["currentNodeId"] = children[snapshots.indexOf(waiting)]?.nodeId;
    }
  }
  const open =
    typeof body["status"] === "string" && body["status"].startsWith("waiting-") ? openInterrupt(state) : undefined;
  if (open !== undefined) {
    settled = false;
    body["interrupt"] = interruptOf(ports, asker, state, open);
  }
  return { body, settled };
}

/**
 * An open question. Its token resolves only for outside systems (`external-event`) and for those who may answer anyway; others get one to
 * look with. A gate that demands a credential gives none.
 */
export function interruptOf({ tokens, clock }: RunsPorts, asker: Asker, state: RunState, open: Interrupt): Json {
  const { record } = state;
  const { interruptId, nodeId, kind, timeoutMs, requestedAt } = open;
  const seen = { interruptId, nodeId, ...questionOf(state, open), requestedAt };
  if (needsCredential(open)) return seen;
  const deadline = timeoutMs === undefined ? Infinity : Date.parse(requestedAt) + timeoutMs;
  const mayAnswer =
    kind === "external-event" || asker.scopes.includes("approvals:respond") || asker.scopes.includes("*");
  const expiresAt = Math.min(clock.now() + TOKEN_LIFE_MS, deadline);
  const interruptToken = tokens.sign({
    tenant: record.owner.tenant,
    runId: record.runId,
    nodeId,
    interruptId,
    expiresAt,
    intent: mayAnswer ? "resolve" : "inspect",
  });
  return { ...seen, interruptToken, callbackUrl: `${asker.base}/v1/interrupts/${interruptToken}` };
}

/** The profile `openwop-interrupt-auth-required`: a token is not enough. */
export function needsCredential({ data }: Interrupt): boolean {
  return data["profile"] === "openwop-interrupt-auth-required";
}

/** `GET /v1/runs/{id}/ancestry`. */
export async function getAncestry({ log }: RunsPorts, asker: Asker, runId: string): Promise<Answer> {
  permit(asker, "runs:read");
  const { record } = (await log.get(asker.tenant, runId)).state;
  const hostId = "beamline";
  const { parent } = record;
  const cause = parent === undefined ? undefined : await causeOf(log, asker.tenant, parent.runId, parent.nodeId);
  return {
    status: 200,
    body: { runId, hostId, parent: parent === undefined ? null : { runId: parent.runId, hostId, cause } },
  };
}

async function causeOf(log: RunsPorts["log"], tenant: string, runId: string, nodeId: string): Promise<string> {
  const typeId = (await log.find(tenant, runId))?.state.nodes.get(nodeId)?.typeId;
  return typeId === "core.dispatch" ? "core.dispatch" : "core.subWorkflow";
}

const MAX_DIFFS = 1_000;

/** `GET /v1/runs/{a}:diff?against={b}`: what differs, event by event and in the end. Ids and times are not compared. */
export async function diffRuns({ log, bus }: RunsPorts, asker: Asker, a: string, b: unknown): Promise<Answer> {
  permit(asker, "runs:read");
  if (typeof b !== "string" || b === "") throw invalid("against", "is required");
  const [one, other] = [await log.get(asker.tenant, a), await log.get(asker.tenant, b)];
  const [left, right] = [await log.history(asker.tenant, a), await log.history(asker.tenant, b)];
  const stateDiff = stateDiffOf(snapshotOf(one.state), snapshotOf(other.state));
  let room = largestAnswer(bus) - bytesOf(stateDiff);
  expectFits("difference of the states", bytesOf(stateDiff), largestAnswer(bus));
  const eventDiffs: Json[] = [];
  let truncated = false;
  let divergedAtSeq: number | null = null;
  for (let seq = 0; seq < Math.max(left.length, right.length); seq++) {
    const [aEvent, bEvent] = [left[seq], right[seq]];
    if (aEvent !== undefined && bEvent !== undefined && sameEvent(aEvent, bEvent)) continue;
    divergedAtSeq ??= seq;
    const op = aEvent === undefined ? "added" : bEvent === undefined ? "removed" : "changed";
    const diff = { seq, op, ...(aEvent !== undefined && { aEvent }), ...(bEvent !== undefined && { bEvent }) };
    room -= bytesOf(diff) + 1;
    truncated = eventDiffs.length >= MAX_DIFFS || room < 0;
    if (truncated) break;
    eventDiffs.push(diff);
  }
  return {
    status: 200,
    body: { a, b, divergedAtSeq, eventDiffs, stateDiff, truncated },
  };
}

const OWN = new Set([
  "durationMs",
  "interruptId",
  "key",
  "childRunId",
  "delayMs",
  "decidedAt",
  "resolvedAt",
  "writtenAt",
  "runId",
  "parentRunId",
]);

/** Whether two events say the same, whenever and in whatever run they happened. */
export function sameEvent(one: RunEvent, other: RunEvent): boolean {
  return (
    one.type === other.type &&
    one.nodeId === other.nodeId &&
    sameJson(withoutOwn(one.payload), withoutOwn(other.payload))
  );
}

function withoutOwn(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withoutOwn);
  if (!isObject(value)) return value;
  return Object.fromEntries(
    Object.entries(value)
      .filter(([key]) => !OWN.has(key))
      .map(([key, member]) => [key, withoutOwn(member)]),
  );
}

function stateDiffOf(a: Json, b: Json): Json {
  const diff: Record<string, unknown> = {};
  for (const key of ["status", "variables", "channels", "error"]) {
    if (!sameJson(a[key] ?? null, b[key] ?? null)) diff[key] = { a: a[key] ?? null, b: b[key] ?? null };
  }
  return diff;
}

const MAX_BUNDLE = 8 * 1024 * 1024;

/** `GET /v1/runs/{id}/debug-bundle`: everything a run shows, once more and together. */
export async function debugBundle({ log, host, clock, bus }: RunsPorts, asker: Asker, runId: string): Promise<Answer> {
  permit(asker, "runs:read");
  const { state } = await log.get(asker.tenant, runId);
  const all = await log.history(asker.tenant, runId);
  const snapshot = snapshotOf(state);
  const run = {
    ...snapshot,
    inputs: all[0] !== undefined && isObject(all[0].payload) ? all[0].payload["inputs"] : {},
    endedAt: state.completedAt ?? null,
    error: snapshot["error"] ?? null,
  };
  const base = {
    bundleVersion: "1",
    generatedAt: new Date(clock.now()).toISOString(),
    host: { name: "beamline", version: host.version, vendor: "beamline" },
    run,
    spans: [],
  };
  const redaction = { redactionApplied: state.record.masking !== "passthrough", redactionMode: state.record.masking };
  const events: RunEvent[] = [];
  let size = bytesOf(base) + 1_024;
  expectFits("debug bundle without its events", size, Math.min(MAX_BUNDLE, largestAnswer(bus)));
  for (const event of all) {
    size += bytesOf(event) + 1;
    if (size > Math.min(MAX_BUNDLE, largestAnswer(bus))) break;
    events.push(event);
  }
  const truncated = events.length < all.length && { truncated: true, truncatedReason: "events_truncated_to_size_cap" };
  const { openwopCost } = objectOr(snapshot["metrics"]);
  const metrics = {
    nodeCount: state.nodes.size,
    eventCount: events.length,
    ...(openwopCost !== undefined && { openwopCost }),
  };
  return {
    status: 200,
    headers: { "cache-control": "no-store" },
    body: { ...base, events, metrics, ...redaction, ...truncated },
  };
}

const POLL_MS = 10_000;
const POLL_EVERY_MS = 100;

/**
 * Events after a sequence (`after`, -1 for all), for clients of the bus alone: the edge reads the log itself. Waits up to ten seconds for
 * one.
 */
export async function pollEvents({ log, clock }: RunsPorts, asker: Asker, runId: string, query: Json): Promise<Answer> {
  permit(asker, "runs:read");
  const after = Number(query["after"] ?? -1);
  if (!Number.isInteger(after)) throw invalid("after", "must be a whole number");
  for (const deadline = clock.monotonic() + POLL_MS; ; await clock.sleep(POLL_EVERY_MS)) {
    const { state } = await log.get(asker.tenant, runId);
    const isComplete = isTerminal(state);
    if (state.sequence <= after && !isComplete && clock.monotonic() < deadline) continue;
    const events =
      state.sequence <= after ? [] : (await log.events(asker.tenant, runId)).filter(({ sequence }) => sequence > after);
    return { status: 200, body: { events, isComplete } };
  }
}
