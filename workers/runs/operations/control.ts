/** Cancel, pause, resume (OpenWOP, pause, resume, drain, cancel). Each is one append, checked against the log; the engine follows it. */
import { BeamlineError } from "../../../contracts/errors.ts";
import { textOr, type Json } from "../../../contracts/openwop/json.ts";
import type { Control, LogEntry, NewEvent } from "../../../contracts/openwop/log.ts";
import { isTerminal, statusOf } from "../../../contracts/openwop/snapshot.ts";
import type { RunState } from "../../../contracts/openwop/state.ts";
import { bodyOf, invalid, oneOf, text } from "../body.ts";
import { permit, type Answer, type Asker } from "../caller.ts";
import { ended } from "../engine/ended.ts";
import type { Execution } from "../idempotency.ts";
import type { Appended } from "../log.ts";
import { isUnsettled } from "../engine/plan.ts";
import type { RunsPorts } from "../ports.ts";

export const MAX_RUN_IDS = 100;
const MAX_TRIES = 50;

export interface Decision {
  readonly events: readonly NewEvent[];
  readonly control?: Control;
  readonly watcher?: string;
}

/** An append nobody had to make has no entry. */
type Changed = Pick<Appended, "state"> & Partial<Appended>;

/**
 * Reads the run, decides, appends; again when something came in between. `decide` gives undefined when there is nothing to do. What an
 * earlier execution of the same call has appended is not appended again, and nothing is decided. Gives back the append and the state after
 * it. Throws what `decide` throws, `run_not_found`, `service_unavailable` when others keep writing.
 */
export async function change(
  ports: RunsPorts,
  tenant: string,
  runId: string,
  decide: (state: RunState) => Decision | undefined,
  call?: Execution,
): Promise<Changed> {
  for (let tries = 0; ; tries++) {
    const held = await ports.log.get(tenant, runId);
    if (call?.keyed === true && (call.again || tries > 0)) {
      const earlier = await ports.log.appended(tenant, runId, call.id);
      if (earlier !== undefined) return earlier;
    }
    const decision = decide(held.state);
    if (decision === undefined) return held;
    const { events, ...more } = decision;
    const beside = { ...more, ...(call?.keyed === true && { call: call.id }) };
    let entry: LogEntry;
    try {
      entry = await ports.log.extend(held, events, beside);
    } catch (thrown) {
      if (!(thrown instanceof BeamlineError) || thrown.code !== "aborted") throw thrown;
      if (tries < MAX_TRIES) continue;
      throw new BeamlineError("service_unavailable", "others keep changing the run", { retryAfterSeconds: 1 });
    }
    ports.poke(tenant, runId);
    return { state: (await ports.log.get(tenant, runId)).state, entry };
  }
}

/** `POST /v1/runs/{id}/cancel`. Cancelling what has ended is no error and changes nothing. */
export async function cancelRun(ports: RunsPorts, asker: Asker, runId: string, given: unknown): Promise<Answer> {
  permit(asker, "runs:cancel");
  return ports.idempotency.once(asker, "runs.cancel", { runId, body: given ?? null }, async () => {
    const { reason } = bodyOf(given, { reason: text(2_048) });
    const status = await cancelOne(ports, asker, runId, textOr(reason, ""));
    return { status: 200, body: { runId, status } };
  });
}

async function cancelOne(ports: RunsPorts, asker: Asker, runId: string, reason: string): Promise<string> {
  let mine = false;
  const { state } = await change(ports, asker.tenant, runId, (now) => {
    mine = !isTerminal(now);
    if (!mine) return undefined;
    return {
      events: cancelEvents(ports, now, {
        ...(reason !== "" && { reason }),
        ...(asker.principal !== "" && { cancelledBy: asker.principal }),
      }),
    };
  });
  if (mine) ended(ports, state);
  if (state.status === "cancelled")
    await ports.audit.record(asker, "run.cancelled", runId, reason === "" ? {} : { reason });
  return state.status;
}

function cancelEvents({ clock }: RunsPorts, state: RunState, extra: Json): NewEvent[] {
  const events: NewEvent[] = [];
  for (const own of state.nodes.values()) {
    if (isUnsettled(own))
      events.push({
        type: "node.cancelled",
        nodeId: own.nodeId,
        payload: { nodeId: own.nodeId, reason: "run-cancelled" },
      });
  }
  const durationMs = Math.max(0, clock.now() - Date.parse(state.startedAt));
  return [...events, { type: "run.cancelled", payload: { ...extra, durationMs } }];
}

/**
 * Cancels children of a run that has ended: of one that was cancelled those that do not outlive it, of one that failed those it still waited
 * for. What a completed run started and did not wait for goes on.
 */
export async function cancelChildren(ports: RunsPorts, tenant: string, runId: string): Promise<void> {
  const { state } = await ports.log.get(tenant, runId);
  const reason = state.status === "cancelled" ? "parent-cancelled" : "parent-ended";
  for (const child of state.children.values()) {
    const held = await ports.log.find(tenant, child.runId);
    const parent = held?.state.record.parent;
    if (state.status !== "cancelled" && state.nodes.get(child.nodeId)?.status !== "cancelled") continue;
    // The children a replay looks at are those of its source.
    if (
      held === undefined ||
      isTerminal(held.state) ||
      parent?.propagateCancellation !== true ||
      parent.runId !== runId
    )
      continue;
    let mine = false;
    const after = await change(ports, tenant, child.runId, (now) => {
      mine = !isTerminal(now);
      return mine ? { events: cancelEvents(ports, now, { reason, parentRunId: runId }) } : undefined;
    });
    if (mine) ended(ports, after.state);
  }
}

/** `POST /v1/runs:bulk-cancel`: every run has an outcome of its own, in the order asked for. */
export async function bulkCancel(ports: RunsPorts, asker: Asker, given: unknown): Promise<Answer> {
  permit(asker, "runs:cancel");
  return ports.idempotency.once(asker, "runs.bulkCancel", given, async () => {
    const body = bodyOf(given, { runIds: () => undefined, reason: text(512) }, ["runIds"]);
    const { runIds } = body;
    if (!Array.isArray(runIds) || runIds.length === 0) throw invalid("runIds", "must be a list of at least 1");
    if (runIds.length > MAX_RUN_IDS)
      throw invalid("runIds", `must be a list of at most ${MAX_RUN_IDS}`, { maxRunIds: MAX_RUN_IDS });
    runIds.forEach((id: unknown, at) => text(128, 1)(id, `runIds[${at}]`));
    const reason = textOr(body["reason"], "");
    const results = await Promise.all((runIds as string[]).map((runId) => bulkOne(ports, asker, runId, reason)));
    return { status: 200, body: { results } };
  });
}

async function bulkOne(ports: RunsPorts, asker: Asker, runId: string, reason: string): Promise<Json> {
  try {
    const status = await cancelOne(ports, asker, runId, reason);
    if (status === "cancelled" || status === "cancelling") return { runId, ok: true, status };
    return { runId, ok: false, error: { code: "run_terminal", message: `the run has ended as ${status}` } };
  } catch (thrown) {
    const { code, message } = BeamlineError.from(thrown);
    return { runId, ok: false, error: { code: code === "run_not_found" ? "not_found" : code, message } };
  }
}

/** `POST /v1/runs/{id}:pause`. What waits for an answer is not paused: 409 with its status. */
export async function pauseRun(ports: RunsPorts, asker: Asker, runId: string, given: unknown): Promise<Answer> {
  permit(asker, "runs:cancel");
  return ports.idempotency.once(asker, "runs.pause", { runId, body: given ?? null }, async (call) => {
    const body = bodyOf(given, { reason: text(2_048), drainPolicy: oneOf("immediate", "drain-current-node") });
    const drainPolicy = textOr(body["drainPolicy"], "drain-current-node");
    const requestedAt = new Date(ports.clock.now()).toISOString();
    const reason = typeof body["reason"] === "string" && body["reason"] !== "" ? { reason: body["reason"] } : {};
    const decide = (now: RunState): Decision => {
      const status = now.pausing === undefined ? statusOf(now) : "paused";
      if (status !== "running") throw notNow("paused", status, now);
      if (drainPolicy === "immediate") return { events: [{ type: "run.paused", payload: { drainPolicy, ...reason } }] };
      return { events: [], control: { kind: "pause", requestedAt, ...reason } };
    };
    const { entry } = await change(ports, asker.tenant, runId, decide, call);
    await ports.audit.record(asker, "run.paused", runId, { drainPolicy });
    const pausedAt = entry?.events.at(-1)?.timestamp ?? entry?.control?.requestedAt ?? requestedAt;
    return { status: 202, body: { runId, status: "paused", pausedAt } };
  });
}

/** `POST /v1/runs/{id}:resume`. */
export async function resumeRun(ports: RunsPorts, asker: Asker, runId: string, given: unknown): Promise<Answer> {
  permit(asker, "runs:cancel");
  return ports.idempotency.once(asker, "runs.resume", { runId, body: given ?? null }, async (call) => {
    bodyOf(given, { reason: text(2_048) });
    const decide = (now: RunState): Decision => {
      const resumed = { type: "run.resumed", payload: {} };
      if (now.status === "running" && now.pausing !== undefined) {
        // The pause had not taken effect yet: the log shows both.
        return {
          events: [
            {
              type: "run.paused",
              payload: {
                drainPolicy: "drain-current-node",
                ...(now.pausing.reason !== undefined && { reason: now.pausing.reason }),
              },
            },
            resumed,
          ],
        };
      }
      if (now.status !== "paused") throw notNow("resumed", statusOf(now), now);
      return { events: [resumed] };
    };
    const { entry } = await change(ports, asker.tenant, runId, decide, call);
    await ports.audit.record(asker, "run.resumed", runId, {});
    const resumedAt = entry?.events.at(-1)?.timestamp;
    return { status: 202, body: { runId, status: "running", resumedAt } };
  });
}

function notNow(what: string, runStatus: string, state: RunState): BeamlineError {
  const pausedAt = state.pausedAt ?? state.pausing?.requestedAt;
  return new BeamlineError(
    isTerminal(state) ? "run_terminal" : "run_state_conflict",
    `the run is ${runStatus} and cannot be ${what}`,
    {
      details: { runStatus, ...(pausedAt !== undefined && { pausedAt }) },
    },
  );
}
