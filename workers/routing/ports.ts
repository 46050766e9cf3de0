/** What the routing worker needs from outside, as narrow as it is used. */
import type { JsonObject } from "../../contracts/codec.ts";
import type { Breaker, Policy } from "./policies/compile.ts";
import type { Extension } from "./extensions/extension.ts";
import type { RoutingRequest } from "./intake/forms.ts";
import type { Decision, Words } from "./choice/decision.ts";

/** Policies in memory. */
export interface Policies {
  /** The tenant's policy of that id, else the shared one of that id, else undefined. */
  find(tenant: string, policyId: string): Policy | undefined;
}

/** What is known of a provider from the results of its calls. */
export interface Estimate {
  /** Milliseconds; undefined while nothing was measured. */
  readonly latencyMs: number | undefined;
  /** US dollars per call. */
  readonly cost: number | undefined;
}

export type CircuitState = "closed" | "open" | "half_open";

/** Health of providers, fed by the results of their calls, never by the request path. */
export interface ProviderHealth {
  /** Changes whenever an estimate or a circuit changes: what was derived from them before is stale. */
  readonly revision: number;
  estimate(tenant: string, provider: string): Estimate | undefined;
  /** The state of a provider's circuit under the settings of the policy that asks. */
  circuit(tenant: string, provider: string, breaker: Breaker): CircuitState;
  /** Whether a call may go to the provider now; takes one of the trial calls of a half-open circuit unless `dry`. */
  admit(tenant: string, provider: string, breaker: Breaker, dry: boolean): boolean;
}

/** What a decision asks of shared state, in one round trip. */
export interface Question {
  readonly tenant: string;
  readonly policyId: string;
  /** Tenant-scoped idempotency (BeamLine, idempotency): the request's key and the digest of its body. */
  readonly idempotency: { readonly key: string; readonly digest: string } | undefined;
  readonly limit: { readonly perSecond: number; readonly burst: number } | undefined;
  /** Limits of the tenant, over all its policies. */
  readonly windows: readonly Window[];
  readonly session: SessionQuestion | undefined;
}

/** So many requests in each stretch of so many seconds since 1970. */
export interface Window {
  readonly scope: "tenant" | "quota";
  readonly seconds: number;
  readonly max: number;
}

export interface SessionQuestion {
  readonly value: string;
  readonly ttlMs: number;
  /** Provider stored when the session has none, or one that is not allowed; undefined stores nothing. */
  readonly offer: string | undefined;
  readonly allowed: readonly string[];
}

export type Verdict =
  /** Go on. `session` is the provider of the session, and whether it had it before. */
  | { readonly kind: "go"; readonly session?: { readonly provider: string; readonly kept: boolean } | undefined }
  /** Answered before, with these words. */
  | { readonly kind: "replay"; readonly words: Words }
  /** The key was used with another body. */
  | { readonly kind: "conflict" }
  /** The key's first request does not end, or keys are being brought back after a loss. */
  | { readonly kind: "busy"; readonly retryAfterSeconds: number }
  /** Beyond the policy's limit, or the tenant's when a window is named. */
  | { readonly kind: "limited"; readonly retryAfterSeconds: number; readonly window?: Window | undefined };

/** State that all routing workers share: sessions, idempotency, limits. */
export interface SharedState {
  /**
   * Atomic. Checks in the order idempotency, limit, session; the first refusal leaves the rest untouched. A repetition that arrives while the
   * first request is under way waits for its words.
   */
  settle(question: Question): Verdict | Promise<Verdict>;
  /**
   * Keeps the words of a decision for the repetitions of its request, for an hour or less. Called once after `settle` said go. What it promises is waited for before the
   * request is answered: then its words outlive whatever dies. Must neither throw nor reject.
   */
  remember(tenant: string, key: string, digest: string, words: Words, ttlMs?: number): void | Promise<void>;
  /** Forgets a key whose request failed, so that it may be tried again. Not waited for, must not throw. */
  forget(tenant: string, key: string): void;
}

/** Decisions by message id, for `get_decision`. */
export interface Decisions {
  remember(tenant: string, messageId: string, words: Words): void;
  /** The decision as JSON. Without a tenant: of the one tenant that used the id, undefined when several did. Throws `unavailable` when it cannot know. */
  recall(tenant: string | undefined, messageId: string): string | undefined | Promise<string | undefined>;
}

/** What extensions made of a request before a provider is selected. */
export interface Prepared {
  readonly context: Readonly<JsonObject>;
  /** Payload for the assignment, when an extension replaced it. */
  readonly payload?: string;
  readonly executed: readonly ExecutedExtension[];
}

export interface ExecutedExtension {
  readonly type: "pre" | "validator" | "post";
  readonly id: string;
  readonly status: "ok" | "error" | "skipped" | "warn" | "ignore";
}

/** An extension and whose it is; `*` is everybody's. */
export interface OwnedExtension {
  readonly tenant: string;
  readonly extension: Extension;
}

/** Registered extensions, in memory. */
export interface Extensions {
  /** The tenant's of that id, else the shared one of that id, else undefined. */
  find(tenant: string, id: string): OwnedExtension | undefined;
}

/** What of a call its extensions must know. */
export interface PipelineCall {
  /** Epoch milliseconds. */
  readonly deadline: number;
  readonly traceparent: string;
}

/** The extensions of a policy. Throws the extension codes of the contract. */
export interface Pipeline {
  before(policy: Policy, request: RoutingRequest, call: PipelineCall): Promise<Prepared>;
  after(
    policy: Policy,
    request: RoutingRequest,
    prepared: Prepared,
    decision: Decision,
    call: PipelineCall,
  ): Promise<Decision>;
}

/** A decided request that is to be executed. */
export interface Handover {
  readonly request: RoutingRequest;
  readonly decision: Decision;
  /** What an extension put in place of the request's payload. */
  readonly payload: string | undefined;
  readonly traceparent: string;
}

/** An assignment that is on the disk and not published yet. */
export interface Promised {
  /** Publishes it. Called once, when the reply is on its way; must not throw. */
  keep(): void;
}

/** Hands decided requests on to the execution workers. */
export interface Assignments {
  /** Called before the reply; undefined when this request gets none. Throws `unavailable` when it cannot be stored. */
  promise(handover: Handover): Promise<Promised | undefined>;
}

/** A message that intake refused, for the dead-letter subject (BeamLine, DLQ, intake-validation form). */
export interface RefusedMessage {
  readonly subject: string;
  readonly text: string;
  readonly code: string;
  readonly message: string;
  readonly stage: "schema" | "version" | "correlation" | "message_specific" | "internal";
  readonly tenant: string;
  readonly traceId: string;
  readonly runId: string;
  readonly messageId: string;
}

/** Best effort; never throws, never blocks. */
export interface DeadLetters {
  refused(message: RefusedMessage): void;
}

/** How loaded this worker and what follows it are. */
export interface Load {
  /** True while requests are refused because of it (BeamLine, backpressure). */
  readonly refusing: boolean;
  /** Told how long a decision took, milliseconds. */
  took(ms: number): void;
  /** Figures of a subject; undefined when nobody measures it. */
  measure(subject: string): LoadFigures | undefined | Promise<LoadFigures | undefined>;
}

export interface LoadFigures {
  readonly pendingMessages: number;
  readonly latencyP95Ms: number;
  readonly inflightMessages: number;
}
