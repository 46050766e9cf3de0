/** Answering questions (OpenWOP, interrupts): by run and node with a credential, or by token. One append decides; the other hears 409. */
import { BeamlineError } from "../../../contracts/errors.ts";
import { isObject, objectOr, sameJson, textOr, type Json } from "../../../contracts/openwop/json.ts";
import type { NewEvent } from "../../../contracts/openwop/log.ts";
import { isTerminal, questionOf, statusOf } from "../../../contracts/openwop/snapshot.ts";
import type { Interrupt, RunState } from "../../../contracts/openwop/state.ts";
import { anything, bodyOf, invalid } from "../body.ts";
import { permit, type Answer, type Asker } from "../caller.ts";
import { conform } from "../engine/schemas.ts";
import { answersOf, APPROVAL_ACTIONS } from "../nodes/gates.ts";
import type { RunsPorts } from "../ports.ts";
import { suspended } from "../engine/suspension.ts";
import type { Execution } from "../idempotency.ts";
import { tokenExpired } from "../tokens.ts";
import { change, type Decision } from "./control.ts";
import { needsCredential } from "./read.ts";

/** `POST /v1/runs/{id}/interrupts/{nodeId}`. */
export async function resolveByRun(
  ports: RunsPorts,
  asker: Asker,
  runId: string,
  nodeId: string,
  given: unknown,
): Promise<Answer> {
  permit(asker, "approvals:respond");
  return ports.idempotency.once(asker, "interrupts.resolve", { runId, nodeId, body: given ?? null }, async (call) => {
    const { resumeValue } = bodyOf(given, { resumeValue: anything }, ["resumeValue"]);
    const find = (state: RunState): Interrupt | undefined => latest(state, nodeId);
    const body = await resolve(ports, asker, call, runId, resumeValue, find, false);
    return { status: 200, body };
  });
}

/** `POST /v1/interrupts/{token}`: the token is the credential. */
export async function resolveByToken(ports: RunsPorts, asker: Asker, token: string, given: unknown): Promise<Answer> {
  const { tenant, runId, interruptId, intent, expiresAt } = ports.tokens.open(token, 0);
  if (intent !== "resolve") throw new BeamlineError("forbidden", "the token is for looking only");
  const holder: Asker = {
    ...asker,
    tenant,
    principal: asker.principal === "" ? `token:${interruptId}` : asker.principal,
  };
  return ports.idempotency.once(holder, "interrupts.resolve", { token, body: given ?? null }, async (call) => {
    const { resumeValue } = bodyOf(given, { resumeValue: anything }, ["resumeValue"]);
    await closedFor(ports, tenant, runId);
    const body = await resolve(
      ports,
      holder,
      call,
      runId,
      resumeValue,
      (state) => {
        // Asked here, so that what was answered in time is told ever after.
        if (expiresAt <= ports.clock.now()) throw tokenExpired();
        const interrupt = state.interrupts.get(interruptId);
        if (interrupt !== undefined && needsCredential(interrupt))
          throw new BeamlineError("forbidden", "this gate takes a credential, not a token");
        return interrupt;
      },
      true,
    );
    return { status: 200, body };
  });
}

/** `GET /v1/interrupts/{token}`. */
export async function inspectByToken(ports: RunsPorts, token: string): Promise<Answer> {
  const { tenant, runId, interruptId } = ports.tokens.open(token, ports.clock.now());
  const held = await ports.log.find(tenant, runId);
  const interrupt = held?.state.interrupts.get(interruptId);
  if (held === undefined || interrupt === undefined) throw noSuch();
  if (interrupt.status !== "pending") throw closed(held.state, interrupt, true);
  return { status: 200, body: questionOf(held.state, interrupt) };
}

async function closedFor(ports: RunsPorts, tenant: string, runId: string): Promise<void> {
  if ((await ports.log.find(tenant, runId)) === undefined) throw noSuch();
}

/** The newest question of a node. */
function latest(state: RunState, nodeId: string): Interrupt | undefined {
  return [...state.interrupts.values()].findLast((one) => one.nodeId === nodeId);
}

async function resolve(
  ports: RunsPorts,
  asker: Asker,
  call: Execution,
  runId: string,
  resumeValue: unknown,
  find: (state: RunState) => Interrupt | undefined,
  byToken: boolean,
): Promise<Json> {
  let question: Interrupt | undefined;
  const decide = (now: RunState): Decision => {
    const interrupt = find(now);
    if (interrupt === undefined) throw noSuch();
    if (interrupt.status !== "pending" || isTerminal(now)) throw closed(now, interrupt, byToken);
    // Its time is up, although nobody has come to write that down yet: an answer that is too late is no answer.
    if (
      interrupt.timeoutMs !== undefined &&
      Date.parse(interrupt.requestedAt) + interrupt.timeoutMs <= ports.clock.now()
    )
      throw new BeamlineError("interrupt_expired", "the time to answer is over");
    question = interrupt;
    return { events: answerEvents(ports, asker, interrupt, resumeValue) };
  };
  const { state, entry } = await change(ports, asker.tenant, runId, decide, call);
  const nodeId = entry?.events[0]?.nodeId ?? "";
  // A vote that decides nothing yet is no answer.
  if (question !== undefined && state.interrupts.get(question.interruptId)?.status !== "pending") {
    suspended(state, question);
    const seconds = Math.max(0, ports.clock.now() - Date.parse(question.requestedAt)) / 1000;
    ports.metrics.answered(question.kind, statusOf(state), seconds);
  }
  await ports.audit.record(asker, "interrupt.resolved", runId, { nodeId });
  return { runId, nodeId, status: statusOf(state) };
}

/** The events of an answer. Throws `validation_error` for one that does not fit the question; the run stays as it is. */
function answerEvents(ports: RunsPorts, asker: Asker, interrupt: Interrupt, given: unknown): NewEvent[] {
  const { nodeId, interruptId, kind, data, resumeSchema } = interrupt;
  const at = new Date(ports.clock.now()).toISOString();
  if (resumeSchema !== undefined) conform(resumeSchema, given, "resumeValue");
  const events: NewEvent[] = [];
  let resumeValue = given;
  switch (kind) {
    case "approval": {
      const vote = voteOf(data, given, asker, at);
      const { voter, value: _value, ...shown } = vote;
      events.push({ type: "approval.received", nodeId, payload: { nodeId, interruptId, ...shown, decidedBy: voter } });
      const outcome = tally(interrupt, voter, vote.action);
      if (outcome === undefined) return events;
      resumeValue = { ...vote.value, action: outcome, decidedBy: voter, decidedAt: at };
      break;
    }
    case "clarification": {
      const answers = answersOf(given);
      checkAnswers(data, answers);
      events.push({
        type: "clarification.resolved",
        nodeId,
        payload: { nodeId, answers, ...(asker.principal !== "" && { answeredBy: asker.principal }) },
      });
      break;
    }
    case "external-event":
      checkCorrelation(data, given);
      break;
    case "conversation.start":
    case "conversation.exchange":
    case "conversation.close":
      if (isObject(data["outcomeSchema"])) conform(data["outcomeSchema"], given, "resumeValue");
      break;
    default:
      break;
  }
  events.push(
    {
      type: "interrupt.resolved",
      nodeId,
      payload: {
        nodeId,
        interruptId,
        kind,
        resumeValue,
        resolvedAt: at,
        ...(asker.principal !== "" && { resolvedBy: asker.principal }),
      },
    },
    { type: "node.resumed", nodeId, payload: { nodeId, interruptId, resumeValue } },
  );
  return events;
}

interface Cast {
  readonly voter: string;
  readonly action: string;
  readonly value: Json;
  readonly decidedAt: string;
  readonly feedback?: unknown;
  readonly comment?: unknown;
  readonly refineFeedback?: unknown;
  readonly editedArtifactData?: unknown;
}

/** A vote as it was meant. The older spellings `decision: approved | rejected` are read too. */
function voteOf(data: Json, given: unknown, asker: Asker, at: string): Cast {
  if (!isObject(given)) throw invalid("resumeValue", "must be an object with an action");
  const action = actionOf(given);
  const actions = Array.isArray(data["actions"]) ? (data["actions"] as unknown[]) : ["accept", "reject"];
  const known: readonly string[] = APPROVAL_ACTIONS;
  if (action === undefined || !known.includes(action) || !actions.includes(action))
    throw invalid("resumeValue.action", `must be one of ${actions.join(", ")}`);
  if (action === "ask") throw invalid("resumeValue.action", "ask does not answer the gate");
  if (action === "refine" && !isObject(given["refineFeedback"]) && typeof given["feedback"] !== "string")
    throw invalid("resumeValue.refineFeedback", "is required to refine");
  if (action === "edit-accept" && given["editedArtifactData"] === undefined)
    throw invalid("resumeValue.editedArtifactData", "is required to edit and accept");
  const voter = textOr(given["voter"] ?? given["decidedBy"], asker.principal === "" ? "anonymous" : asker.principal);
  const allowed = data["approversList"];
  if (Array.isArray(allowed) && allowed.length > 0 && !allowed.includes(voter)) {
    throw new BeamlineError("forbidden", "the voter is not among the approvers of this gate", {
      details: { nodeVoter: voter },
    });
  }
  const { feedback, comment, refineFeedback, editedArtifactData } = given;
  return {
    voter,
    action,
    value: given,
    decidedAt: at,
    ...(feedback !== undefined && { feedback }),
    ...(comment !== undefined && { comment }),
    ...(refineFeedback !== undefined && { refineFeedback }),
    ...(editedArtifactData !== undefined && { editedArtifactData }),
  };
}

function actionOf(given: Json): string | undefined {
  if (typeof given["action"] === "string") return given["action"];
  if (given["decision"] === "approved") return "accept";
  if (given["decision"] !== "rejected") return undefined;
  return given["feedback"] === undefined ? "reject" : "refine";
}

/** What the votes come to; undefined while more are needed. The same voter counts once, with the newest vote. */
function tally(interrupt: Interrupt, voter: string, action: string): string | undefined {
  const votes = [...interrupt.votes.filter((vote) => vote.voter !== voter), { voter, action }];
  const required = typeof interrupt.data["requiredApprovals"] === "number" ? interrupt.data["requiredApprovals"] : 1;
  if (action === "refine") return "refine";
  const accepts = votes.filter((vote) => vote.action === "accept" || vote.action === "edit-accept").length;
  const rejects = votes.filter((vote) => vote.action === "reject").length;
  if (accepts >= required) return action === "reject" ? "accept" : action;
  const needed = interrupt.data["rejectionPolicy"] === "majority" ? Math.floor(required / 2) + 1 : 1;
  return rejects >= needed ? "reject" : undefined;
}

function checkAnswers(data: Json, answers: Json): void {
  const questions = Array.isArray(data["questions"]) ? (data["questions"] as unknown[]).filter(isObject) : [];
  for (const { id, schema } of questions) {
    const answer = answers[String(id)];
    if (answer === undefined) throw invalid(`resumeValue.answers.${String(id)}`, "is required");
    if (isObject(schema)) conform(schema, answer, `resumeValue.answers.${String(id)}`);
  }
}

/** Every key of the correlation must be there and the same; further keys are welcome. */
function checkCorrelation(data: Json, given: unknown): void {
  if (!isObject(given)) throw invalid("resumeValue", "must be the event as an object");
  for (const [key, expected] of Object.entries(objectOr(data["correlation"]))) {
    if (!sameJson(given[key], expected))
      throw invalid(`resumeValue.${key}`, "does not match the correlation of the interrupt");
  }
}

function noSuch(): BeamlineError {
  return new BeamlineError("interrupt_not_found", "there is no such interrupt");
}

/** Why a question takes no answer any more. */
function closed(state: RunState, interrupt: Interrupt, byToken: boolean): BeamlineError {
  if (interrupt.status === "resolved")
    return new BeamlineError("interrupt_already_resolved", "the interrupt is resolved already");
  if (state.status !== "cancelled") return new BeamlineError("interrupt_already_resolved", "the run has ended");
  if (state.cancelReason === "parent-cancelled")
    return new BeamlineError("interrupt_gone", "the interrupt went with its cancelled run");
  if (byToken) return new BeamlineError("interrupt_already_resolved", "the run was cancelled");
  return new BeamlineError("interrupt_cancelled", "the run was cancelled while the interrupt was open");
}
