/**
 * Decisions that need state shared by all workers - a session, a limit, an idempotency key - or extensions. The decision is offered
 * before the one round trip and given back when the answer makes it unnecessary, so that settling costs one round trip, never two.
 */
import { hash } from "node:crypto";
import { BeamlineError } from "../../../contracts/errors.ts";
import type { Policy } from "../policies/compile.ts";
import {
  circuitChoice,
  decide,
  fallback,
  isCommon,
  phrase,
  say,
  select,
  type DecidePorts,
  type Offer,
} from "../choice/decide.ts";
import { forSession, type Spoken, type Words } from "../choice/decision.ts";
import type { Choice } from "../choice/explain.ts";
import { payloadIn, type RoutingRequest } from "../intake/forms.ts";
import { textFact, type Facts } from "../policies/match.ts";
import type { Question, SessionQuestion, SharedState, Verdict, Window } from "../ports.ts";
import { refuse } from "../intake/refusal.ts";
import { claim, survey, type Survey } from "../choice/survey.ts";

export interface SharedPorts extends DecidePorts {
  readonly shared: SharedState;
  /** Told whether a session kept its provider. */
  readonly onSession?: (tenant: string, kept: boolean) => void;
  /** Limits of a tenant over all its policies; none when left out. */
  readonly windows?: ((tenant: string) => readonly Window[]) | undefined;
  /** Told of a request that was within its limits. */
  readonly onWithinLimit?: (tenant: string, scope: "policy" | "tenant") => void;
  /** Told when shared state could not be asked. */
  readonly onStoreFailure?: (thrown: unknown, key: string) => void;
}

export interface SharedMode {
  /** Changes a new decision before it is kept and given out; not asked about repetitions. */
  readonly finishing?: (spoken: Spoken) => Promise<Spoken>;
  /** Whether key and limits were settled before, by `enter`. Default false. */
  readonly entered?: boolean;
}

const noWindows: readonly Window[] = [];

/** The words of an earlier decision, for a request that was made before. */
export interface Replayed {
  readonly replayed: Words;
}

/** Whether a decision depends on anything but this worker's memory. */
export function needsShared(policy: Policy, request: RoutingRequest, { windows }: SharedPorts): boolean {
  return (
    policy.sticky !== undefined ||
    policy.rateLimit !== undefined ||
    request.idempotencyKey !== "" ||
    (windows !== undefined && windows(request.tenant).length > 0)
  );
}

/**
 * The part of the question that goes before extensions (BeamLine, resolution order; idempotency): key and limits. A repetition is answered with the words of
 * the first request and asks no extension. Throws as `decideShared`. Whoever entered ends in `decideShared` with `entered`, or calls `leave`.
 */
export async function enter(
  policy: Policy,
  request: RoutingRequest,
  ports: SharedPorts,
): Promise<Replayed | undefined> {
  const question = { ...entranceOf(policy, request, ports), session: undefined };
  if (question.idempotency === undefined && question.limit === undefined && question.windows.length === 0)
    return undefined;
  const verdict = await settle(question, ports);
  if (verdict.kind !== "go") return refused(verdict, policy, request.idempotencyKey);
  within(question, ports);
  return undefined;
}

/** Lets go of the key of a request that entered and failed, so that it may be tried again. */
export function leave({ tenant, idempotencyKey }: RoutingRequest, { shared }: SharedPorts): void {
  if (idempotencyKey !== "") shared.forget(tenant, idempotencyKey);
}

function entranceOf(policy: Policy, request: RoutingRequest, { windows }: SharedPorts): Omit<Question, "session"> {
  const { tenant, idempotencyKey: key } = request;
  return {
    tenant,
    policyId: policy.id,
    idempotency: key === "" ? undefined : { key, digest: digestOf(request) },
    limit: policy.rateLimit,
    windows: windows?.(tenant) ?? noWindows,
  };
}

function within({ tenant, limit, windows }: Question, { onWithinLimit }: SharedPorts): void {
  if (limit !== undefined) onWithinLimit?.(tenant, "policy");
  if (windows.length > 0) onWithinLimit?.(tenant, "tenant");
}

/** What was prepared before the question was asked. */
interface Prepared {
  readonly field: Survey;
  readonly offer: Offer | undefined;
  /** The session the decision is for; undefined when nothing sticks. */
  readonly session: string | undefined;
}

/**
 * Decides with one question to shared state. Throws `rate_limit_exceeded`, `invalid_request` (`IDEMPOTENCY_VIOLATION`), and what `decide` throws; a
 * request that failed may be repeated with the same key. A promise only when shared state answers with one.
 */
export function decideShared(
  policy: Policy,
  request: RoutingRequest,
  facts: Facts,
  ports: SharedPorts,
  { finishing, entered = false }: SharedMode = {},
): Outcome | Promise<Outcome> {
  let prepared: Prepared;
  try {
    prepared = prepare(policy, facts, ports);
  } catch (thrown) {
    if (entered) leave(request, ports);
    throw thrown;
  }
  const { offer } = prepared;
  const key = request.idempotencyKey;
  const { session } = prepared;
  const entrance = entranceOf(policy, request, ports);
  const digest = entrance.idempotency?.digest ?? "";
  const question: Question = {
    ...entrance,
    ...(entered && { idempotency: undefined, limit: undefined, windows: noWindows }),
    session: session === undefined ? undefined : sessionOf(policy, session, prepared.field, offer),
  };
  const keep = (spoken: Spoken): Spoken | Promise<Spoken> => {
    if (key === "") return spoken;
    const kept = ports.shared.remember(request.tenant, key, digest, spoken, request.keyTtlMs);
    return kept instanceof Promise ? kept.then(() => spoken) : spoken;
  };
  const fail = (thrown: unknown): never => {
    if (key !== "") ports.shared.forget(request.tenant, key);
    throw thrown;
  };
  const conclude = (verdict: Verdict): Outcome | Promise<Outcome> => {
    if (verdict.kind !== "go") {
      offer?.giveBack();
      return refused(verdict, policy, key);
    }
    within(question, ports);
    let spoken: Spoken;
    try {
      spoken =
        session === undefined
          ? decide(policy, facts, ports)
          : inSession(policy, facts, ports, session, prepared, verdict);
    } catch (thrown) {
      return fail(thrown);
    }
    return finishing === undefined ? keep(spoken) : finishing(spoken).then(keep, fail);
  };
  if (entered && question.session === undefined) return conclude({ kind: "go" });
  const verdict = settle(question, ports);
  return verdict instanceof Promise ? verdict.then(conclude) : conclude(verdict);
}

export type Outcome = Spoken | Replayed;

const open: Survey = { usable: undefined, losses: [] };

/** Offers a provider to the session, when there is one and no circuit has the first word. */
function prepare(policy: Policy, facts: Facts, ports: SharedPorts): Prepared {
  const session = policy.sticky === undefined ? undefined : textFact(facts, policy.sticky.sessionKey);
  if (session === undefined || circuitChoice(policy, facts, ports.health) !== undefined)
    return { field: open, offer: undefined, session: undefined };
  const field = isCommon(policy, facts) ? open : survey(policy, facts, ports.health);
  return { field, offer: select(policy, facts, field, ports, false), session };
}

/** Asks. A store that cannot answer stops nobody: the decision is made without it, as if session and key were new (BeamLine, idempotency, limits). */
function settle(question: Question, { shared, onStoreFailure }: SharedPorts): Verdict | Promise<Verdict> {
  const goOn = (thrown: unknown): Verdict => {
    onStoreFailure?.(thrown, question.idempotency?.key ?? "");
    return { kind: "go" };
  };
  try {
    const verdict = shared.settle(question);
    return verdict instanceof Promise ? verdict.catch(goOn) : verdict;
  } catch (thrown) {
    return goOn(thrown);
  }
}

function inSession(
  policy: Policy,
  facts: Facts,
  ports: SharedPorts,
  session: string,
  { field, offer }: Prepared,
  verdict: Verdict & { kind: "go" },
): Spoken {
  const stored = verdict.session;
  ports.onSession?.(facts.tenant, stored?.kept === true);
  const kept = stored?.kept === true || (stored !== undefined && stored.provider !== offer?.choice.provider);
  if (kept) offer?.giveBack();
  const choice = kept ? keptChoice(policy, stored.provider, field) : offer?.choice;
  if (choice === undefined) return say(policy, facts, fallback(policy, facts, field, ports, false), ports);
  claim(policy, choice.provider, facts, ports.health);
  const make = (about: Facts): Spoken =>
    say(policy, about, { ...choice, more: { session_key: policy.sticky?.sessionKey ?? "" } }, ports);
  const spoken = isCommon(policy, facts)
    ? phrase(policy, facts.tenant, `${choice.reason} ${choice.provider}`, ports.health, make)
    : make(facts);
  return forSession(spoken, session, ports.now() + (policy.sticky?.ttlMs ?? 0));
}

function keptChoice(policy: Policy, provider: string, { losses }: Survey): Choice {
  const why = policy.candidates.map((_, at) => losses[at] ?? `the session is with ${provider}`);
  return { provider, reason: "sticky", algorithm: "sticky", losses: why };
}

function sessionOf(policy: Policy, value: string, { usable }: Survey, offer: Offer | undefined): SessionQuestion {
  const allowed =
    usable === undefined ? policy.candidateIds : policy.candidateIds.filter((_, at) => usable[at] === true);
  return { value, ttlMs: policy.sticky?.ttlMs ?? 0, offer: offer?.choice.provider, allowed };
}

function refused(verdict: Exclude<Verdict, { kind: "go" }>, policy: Policy, key: string): Replayed {
  switch (verdict.kind) {
    case "replay":
      return { replayed: verdict.words };
    case "conflict":
      throw refuse(
        "IDEMPOTENCY_VIOLATION",
        "Idempotency violation: the key was used with a different request",
        "idempotency_key",
        { idempotency_key: key },
      );
    case "busy":
      throw new BeamlineError("unavailable", "the idempotency key cannot be checked at the moment", {
        field: "idempotency_key",
        retryAfterSeconds: verdict.retryAfterSeconds,
      });
    case "limited":
      throw overLimit(verdict, policy);
  }
}

function overLimit({ retryAfterSeconds, window }: Verdict & { kind: "limited" }, policy: Policy): BeamlineError {
  if (window === undefined) {
    const { perSecond: limit = 0, burst = 0 } = policy.rateLimit ?? {};
    const details = { scope: "policy", identifier: policy.id, limit, burst };
    return new BeamlineError("rate_limit_exceeded", "rate limit exceeded", { retryAfterSeconds, details });
  }
  const { scope, max, seconds } = window;
  const details = { scope, identifier: "tenant", limit: max, window_seconds: seconds };
  return scope === "quota"
    ? new BeamlineError("quota_exceeded", "quota exceeded", { retryAfterSeconds, details })
    : new BeamlineError("rate_limit_exceeded", "rate limit exceeded", { retryAfterSeconds, details });
}

/**
 * Digest of what a request asks for: type, payload, policy, context. Ids of the transport (trace, message, timestamp) are left out, since a
 * client that repeats a request may number it anew.
 */
export function digestOf(request: RoutingRequest): string {
  const { messageType, policyId, context } = request;
  const reference = (request.body["task"] as { payload_ref?: unknown } | undefined)?.payload_ref;
  return hash(
    "sha256",
    JSON.stringify([messageType, policyId, payloadIn(request) ?? "", reference ?? "", context]),
    "base64url",
  );
}
