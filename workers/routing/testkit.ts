/** What the tests of this folder share: policies without a bucket, ports without a server, a call context. */
import type { Answer } from "../../bus/endpoint.ts";
import { BeamlineError } from "../../contracts/errors.ts";
import type { CallContext } from "../../contracts/handlers.ts";
import type { Headers } from "../../contracts/headers.ts";
import type { JsonObject } from "../../contracts/codec.ts";
import { createRegistry, type Registry } from "../../runtime/metrics.ts";
import { compilePolicy, type Policy } from "./policies/compile.ts";
import type { DecidePorts } from "./choice/decide.ts";
import { RecentDecisions } from "./shared/decisions.memory.ts";
import type { Form } from "./intake/forms.ts";
import { routerAnswers, type IntakePorts, type RouterAnswers } from "./intake/intake.ts";
import { Measures } from "./measures.ts";
import { readPolicy } from "./policies/policy.ts";
import type { ProviderHealth, RefusedMessage } from "./ports.ts";
import { MemoryState } from "./shared/shared.memory.ts";

/** A policy document as JSON, made ready. */
export function policy(document: object, { tenant = "acme", id = "default", revision = 1 } = {}): Policy {
  return compilePolicy({ tenant, id, revision }, readPolicy({ version: "1.0", ...document }));
}

/** Two providers, 70 and 30. */
export const seventyThirty = {
  providers: [
    { name: "openai", weight: 70 },
    { name: "anthropic", weight: 30 },
  ],
} as const;

/** What the contract's sample request is answered with by the seeded policy. */
export const sampleDecision = {
  provider_id: "openai",
  reason: "weighted",
  priority: 50,
  expected_latency_ms: 250,
  expected_cost: 0.001,
  metadata: { algorithm: "weighted_round_robin" },
};

export function callContext(headers: Headers = {}): CallContext {
  return {
    tenant: headers["tenant_id"] ?? "default",
    principal: headers["Beamline-Principal"] ?? "",
    scopes: [],
    traceparent: "",
    deadline: Number.MAX_SAFE_INTEGER,
    signal: new AbortController().signal,
    headers,
    subject: "beamline.router.v1.decide",
  };
}

/** Nothing is known of any provider, and every circuit is closed. */
export const unmeasured: ProviderHealth = {
  revision: 0,
  estimate: () => undefined,
  circuit: () => "closed",
  admit: () => true,
};

export const decidePorts: DecidePorts = { health: unmeasured, random: () => 0, now: () => 1_000 };

/** A router over the given policies, with what it let out. */
export class TestRouter {
  readonly answers: RouterAnswers;
  readonly refused: RefusedMessage[] = [];
  readonly registry: Registry = createRegistry();
  readonly ports: IntakePorts;
  nowMs = 1_700_000_000_000;
  #ids = 0;

  constructor(policies: readonly Policy[], ports: Partial<IntakePorts> = {}) {
    const byName = new Map(policies.map((one) => [`${one.tenant} ${one.id}`, one]));
    const now = (): number => this.nowMs;
    this.ports = {
      policies: { find: (tenant, id) => byName.get(`${tenant} ${id}`) ?? byName.get(`* ${id}`) },
      measures: new Measures(this.registry, "beamline.router.v1.decide"),
      health: unmeasured,
      shared: new MemoryState(now),
      decisions: new RecentDecisions(),
      load: { refusing: false, took: () => undefined, measure: () => undefined },
      newId: () => `generated-${++this.#ids}`,
      random: () => 0,
      now,
      monotonic: () => performance.now(),
      deadLetters: { refused: (message) => void this.refused.push(message) },
      ...ports,
    };
    this.answers = routerAnswers(this.ports);
  }

  /** The reply to a request; a thrown error as its body, which is what goes over the wire. */
  async ask(request: unknown, headers: Headers = {}, answer: Answer = this.answers.decide): Promise<JsonObject> {
    const { reply } = await this.exchange(request, headers, answer);
    return reply;
  }

  async exchange(
    request: unknown,
    headers: Headers = {},
    answer: Answer = this.answers.decide,
  ): Promise<{ reply: JsonObject; error: BeamlineError | undefined }> {
    const text = typeof request === "string" ? request : JSON.stringify(request);
    try {
      return { reply: JSON.parse(await answer(text, callContext(headers))) as JsonObject, error: undefined };
    } catch (thrown) {
      if (!(thrown instanceof BeamlineError) || thrown.body === undefined) throw thrown;
      return { reply: thrown.body, error: thrown };
    }
  }
}

/** The sample request of the BeamLine proto README. */
export const sampleRequest = {
  message: {
    message_id: "msg_1234567890",
    tenant_id: "tenant_abc123",
    trace_id: "trace_abc123",
    message_type: "chat",
    payload: '{"text": "Hello, world!"}',
    metadata: { source: "gateway" },
    timestamp_ms: 1704067200000,
    run_id: "run_abc123",
    flow_id: "flow_xyz789",
    step_id: "step_012345",
    idempotency_key: "idem_key_345",
    span_id: "span_678901",
  },
  policy_id: "default",
  context: { user_id: "user_123" },
  idempotency_key: "request_idem_key_456",
} as const;

/** The same request in each of the four forms. */
export const forms: Readonly<Record<Form, JsonObject>> = {
  seed: {
    message: { message_id: "m1", tenant_id: "acme", trace_id: "t1", message_type: "chat", payload: '{"text":"hi"}' },
    policy_id: "default",
    context: { user_id: "u" },
  },
  extended: {
    version: "1",
    request_id: "r1",
    trace_id: "t1",
    tenant_id: "acme",
    task: { type: "chat", payload: { text: "hi there" } },
    policy_id: "default",
    context: { user_id: "u" },
  },
  hybrid: {
    version: "1",
    request_id: "r1",
    trace_id: "t1",
    tenant_id: "acme",
    message: { message_id: "m1", message_type: "chat", payload: { text: "hi" } },
    policy_id: "default",
    context: { user_id: "u" },
  },
  flat: {
    message_id: "m1",
    tenant_id: "acme",
    trace_id: "t1",
    message_type: "chat",
    payload: "eyJ0IjoxfQ==",
    policy_id: "default",
    context: { user_id: "u" },
  },
};
export const everyForm = Object.keys(forms) as Form[];
export const bareForms = new Set<Form>(["seed", "flat"]);
export const idOf: Readonly<Record<Form, string>> = { seed: "m1", extended: "r1", hybrid: "r1", flat: "m1" };

/** A copy with some fields changed, by path; undefined takes a field away. */
export function changed(body: JsonObject, changes: Readonly<Record<string, unknown>>): JsonObject {
  const copy = structuredClone(body);
  for (const [path, value] of Object.entries(changes)) {
    const keys = path.split(".");
    const last = keys.pop() ?? "";
    let at: JsonObject = copy;
    for (const key of keys) at = at[key] as JsonObject;
    if (value === undefined) delete at[last];
    else at[last] = value;
  }
  return copy;
}

/** One provider, with the figures of the contract's sample. */
export const singleProvider = {
  providers: [{ name: "openai", weight: 100, expected_latency_ms: 250, expected_cost: 0.001 }],
};
