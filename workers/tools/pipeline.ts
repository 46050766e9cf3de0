/**
 * One call of a tool, gate by gate (aiOS tools, 1.2 execute pipeline):
 *
 *     exists → input → capabilities → rate → repeated? → approval → backup → run → output → audit
 *
 * G1 Only an unknown tool is an error of the RPC. Every other refusal travels in the response, with an execution id, and is audited.
 * G2 Nothing outside is touched before the last gate. A tool that changes something is recorded, with how to undo it, before it runs.
 * G3 A tool has the time its definition gives it, and no more than its caller has; then it is given up and said so.
 * G4 What left no trace of its end is reported as unknown, never run again in silence.
 */
import { BeamlineError } from "../../contracts/errors.ts";
import type { CallContext } from "../../contracts/handlers.ts";
import { header } from "../../contracts/headers.ts";
import type { ExecuteRequest } from "../../contracts/gen/aios/tools.ts";
import { isoMicros, type Clock } from "../../runtime/clock.ts";
import type { Ids } from "../../runtime/ids.ts";
import type { Logger } from "../../runtime/log.ts";
import { traceIdOf } from "../../runtime/trace.ts";
import type { Approvals } from "./approval.ts";
import { bounded } from "./audit/bounded.ts";
import { wordDenied } from "./capabilities.ts";
import { hashOf, MAX_LEVELS, tooDeep } from "./canonical.ts";
import type { Happening } from "./audit/chain.ts";
import type { Claims, Repeat } from "./claims.ts";
import { KEPT_OUTPUT, type Executions, type Known } from "./executions.ts";
import type { Fence } from "./files/confine.ts";
import type { Grants } from "./grants.ts";
import type { Host } from "./host.ts";
import type { Ledger } from "./audit/ledger.ts";
import type { Measures } from "./measures.ts";
import { perform } from "./perform.ts";
import type { RateLimit } from "./ratelimit.redis.ts";
import type { Offered, Registry } from "./registry.ts";
import { wordInput } from "./schema.ts";
import type { Json } from "./tool.ts";

export interface PipelinePorts {
  readonly registry: Registry;
  readonly grants: Grants;
  readonly rate: RateLimit;
  readonly approvals: Approvals;
  readonly claims: Claims;
  readonly executions: Executions;
  readonly ledger: Ledger;
  readonly host: Host;
  readonly measures: Measures;
  readonly clock: Clock;
  readonly ids: Ids;
  readonly log: Logger;
  readonly limits: { readonly inputBytes: number; readonly outputBytes: number };
}

export interface Outcome {
  readonly success: boolean;
  /** JSON text; empty on failure. */
  readonly output: string;
  readonly error: string;
}

export interface Response extends Outcome {
  readonly executionId: string;
  readonly durationMs: number;
  readonly backupId: string;
}

/** What one call has gathered on its way. */
export interface Journey {
  readonly request: ExecuteRequest;
  readonly context: CallContext;
  readonly offered: Offered;
  readonly executionId: string;
  backupId: string;
  input: Json;
  inputHash: string;
  approvalId: string | undefined;
  secrets: readonly string[];
  /** Set when an earlier call's answer is given again. */
  replayed: Response | undefined;
  /** Revision of the idempotency key's claim that this call may replace. */
  claimRevision: number;
  known: Known | undefined;
  /** Where the agent's capabilities hold; undefined when they hold everywhere. */
  fence: Fence | undefined;
}

/** Longest an answer waits for its row in the ledger, milliseconds. */
const AUDIT_MS = 10_000;
/** Names are keys of stores and part of every record of a call. */
const MAX_AGENT_BYTES = 256;
const MAX_TASK_BYTES = 1_024;

/** A refusal: its text travels in the response. */
const refuse = (error: string): Outcome => ({ success: false, output: "", error });

export class Pipeline {
  readonly ports: PipelinePorts;

  constructor(ports: PipelinePorts) {
    this.ports = ports;
  }

  /** Throws `not_found` for an unknown tool, `unavailable` when nothing can be recorded. */
  async execute(request: ExecuteRequest, context: CallContext): Promise<Response> {
    const { registry, clock, ids } = this.ports;
    const started = clock.monotonic();
    const offered = await registry.find(context.tenant, request.tool_name);
    if (offered === undefined)
      throw new BeamlineError("not_found", `Execution failed: Unknown tool: ${request.tool_name}`, {
        field: "tool_name",
      });
    const journey: Journey = {
      request,
      context,
      offered,
      executionId: ids.v4(),
      backupId: "",
      input: {},
      inputHash: "",
      approvalId: undefined,
      secrets: [],
      replayed: undefined,
      claimRevision: 0,
      known: undefined,
      fence: undefined,
    };
    const refused =
      this.#readInput(journey) ??
      (await this.#capabilities(journey)) ??
      (await this.#rate(journey)) ??
      (await this.#repeated(journey)) ??
      (await this.#approval(journey)) ??
      (await this.#claim(journey));
    if (journey.replayed !== undefined) return journey.replayed;
    const outcome = refused ?? (await this.#perform(journey));
    const durationMs = Math.round(clock.monotonic() - started);
    this.ports.measures.called(request.tool_name, outcome.success, durationMs);
    if (refused !== undefined) await this.audit(journey, outcome, durationMs);
    else await Promise.all([this.audit(journey, outcome, durationMs), this.#finish(journey, outcome, durationMs)]);
    return { ...outcome, executionId: journey.executionId, durationMs, backupId: journey.backupId };
  }

  #readInput(journey: Journey): Outcome | undefined {
    const { input_json, tool_name, agent_id, task_id } = journey.request;
    const misnamed = nameFlaw("agent_id", agent_id, MAX_AGENT_BYTES) ?? nameFlaw("task_id", task_id, MAX_TASK_BYTES);
    if (misnamed !== undefined) return refuse(misnamed);
    if (input_json.length > this.ports.limits.inputBytes) {
      return refuse(
        `${tool_name}: the input of ${input_json.length} bytes is larger than ${this.ports.limits.inputBytes} bytes`,
      );
    }
    let input: unknown = {};
    if (input_json.length > 0) {
      try {
        input = JSON.parse(input_json.toString("utf8"));
      } catch {
        return refuse(`Invalid JSON input: not JSON`);
      }
    }
    if (typeof input !== "object" || input === null || Array.isArray(input))
      return refuse(`Invalid JSON input: must be an object`);
    if (tooDeep(input)) return refuse(`Invalid JSON input: nested deeper than ${MAX_LEVELS} levels`);
    journey.input = renamed(input as Json, journey.offered.handler.aliases);
    const violations = journey.offered.checkInput(journey.input);
    if (violations.length > 0) return refuse(wordInput(tool_name, violations));
    return undefined;
  }

  async #capabilities(journey: Journey): Promise<Outcome | undefined> {
    const { request, context, offered, input } = journey;
    const { grants, host } = this.ports;
    const { missing, known, fence } = await grants.check(context.tenant, request.agent_id, offered.needs, () => {
      const given = (offered.handler.paths ?? [])
        .flatMap((field) => input[field] ?? [])
        .filter((value) => typeof value === "string");
      return Promise.all(given.map((path) => host.files.canonical(path)));
    });
    journey.fence = fence;
    return missing.length === 0 && known ? undefined : refuse(wordDenied(missing));
  }

  async #rate({ request, context }: Journey): Promise<Outcome | undefined> {
    const passes = await this.ports.rate.take(context.tenant, request.agent_id, request.tool_name);
    return passes ? undefined : refuse("Rate limit exceeded");
  }

  /** G4. The answer of an earlier call with the same key; a refusal when its key was used otherwise or its outcome is unknown. */
  async #repeated(journey: Journey): Promise<Outcome | undefined> {
    const repeat = repeatOf(journey);
    if (repeat === undefined) return undefined;
    journey.inputHash = repeat.inputHash;
    const looked = await this.ports.claims.look(repeat);
    if ("refusal" in looked) return refuse(looked.refusal);
    if ("response" in looked) journey.replayed = looked.response;
    else journey.claimRevision = looked.revision;
    return undefined;
  }

  /** Takes the idempotency key, once nothing else stands in the way of the call. */
  async #claim(journey: Journey): Promise<Outcome | undefined> {
    const repeat = repeatOf(journey);
    if (repeat === undefined || journey.replayed !== undefined) return undefined;
    if (await this.ports.claims.take(repeat, journey.executionId, journey.claimRevision)) return undefined;
    return this.#repeated(journey);
  }

  async #approval(journey: Journey): Promise<Outcome | undefined> {
    if (journey.replayed !== undefined) return undefined;
    const verdict = await this.ports.approvals.admit(journey);
    if ("refusal" in verdict) return refuse(verdict.refusal);
    journey.approvalId = verdict.approvalId;
    return undefined;
  }

  async #perform(journey: Journey): Promise<Outcome> {
    try {
      return await perform(this.ports, journey);
    } finally {
      await this.#release(journey);
    }
  }

  /** What changes something and never started leaves its key and its approval to the next attempt. */
  async #release(journey: Journey): Promise<void> {
    if (journey.known !== undefined || journey.offered.handler.changes !== true) return;
    const { claims, approvals, log } = this.ports;
    const repeat = repeatOf(journey);
    try {
      if (repeat?.key !== undefined) await claims.release(repeat, journey.executionId);
      await approvals.giveBack(journey);
    } catch (thrown) {
      log.warn("a call that never began could not be taken back", { execution_id: journey.executionId, error: thrown });
    }
  }

  /** A tool that ran has ended: its record says so, so that a repeated call and a rollback know. */
  async #finish(journey: Journey, { success, output, error }: Outcome, durationMs: number): Promise<void> {
    if (journey.known === undefined) return;
    const kept = output.length <= KEPT_OUTPUT ? { output } : {};
    try {
      const next = { state: "finished" as const, success, error, duration_ms: durationMs, ...kept };
      journey.known = await this.ports.executions.finish(journey.known, next, this.ports.clock.now());
    } catch (thrown) {
      this.ports.log.error("an execution could not be recorded as finished", {
        execution_id: journey.executionId,
        error: thrown,
      });
    }
  }

  /**
   * Adds the call to the ledger. A ledger that cannot be written is an alarm, not a reason to hide what was done (aiOS tools, 1.6): after a while the
   * answer no longer waits for its row, which is stored as soon as that can be.
   */
  async audit(journey: Journey, outcome: Outcome, durationMs: number): Promise<void> {
    const { request, context, offered, executionId, backupId, approvalId } = journey;
    const traceId = traceIdOf(context.traceparent) ?? "";
    const happening: Happening = {
      execution_id: executionId,
      tool_name: request.tool_name,
      agent_id: bounded.name(request.agent_id),
      task_id: bounded.name(request.task_id),
      reason: bounded.text(request.reason),
      success: outcome.success,
      duration_ms: durationMs,
      timestamp: isoMicros(this.ports.clock.micros()),
      input: bounded.json(journey.input, journey.secrets),
      risk_level: offered.checkedRisk,
      capabilities_used: offered.needs,
      node: this.ports.host.node,
      ...(outcome.output !== "" && { output: bounded.jsonText(outcome.output, journey.secrets) }),
      ...(outcome.error !== "" && { error: bounded.text(outcome.error) }),
      ...(backupId !== "" && { backup_id: backupId }),
      ...(approvalId !== undefined && { approval_id: approvalId }),
      ...(context.principal !== "" && { principal: context.principal }),
      ...(traceId !== "" && { trace_id: traceId }),
    };
    const stored = this.ports.ledger.append(context.tenant, happening).then(
      () => undefined,
      (thrown: unknown) =>
        this.ports.log.error("a tool call could not be audited", {
          execution_id: executionId,
          tool: request.tool_name,
          error: thrown,
        }),
    );
    let timer: NodeJS.Timeout | undefined;
    const patience = new Promise<void>((resolve) => (timer = setTimeout(resolve, AUDIT_MS)));
    await Promise.race([stored, patience]);
    clearTimeout(timer);
  }
}

/** What to look for when this call may have been made before; undefined when it does not matter. */
function repeatOf({ request, context, offered, input }: Journey): Repeat | undefined {
  const key = context.headers[header.idempotencyKey];
  const { idempotent } = offered.definition;
  if (offered.handler.changes !== true || (key === undefined && !idempotent)) return undefined;
  return { tenant: context.tenant, key, request, inputHash: hashOf(input), idempotent, signal: context.signal };
}

function nameFlaw(field: string, text: string, maxBytes: number): string | undefined {
  return Buffer.byteLength(text) > maxBytes ? `${field} is longer than ${maxBytes} bytes` : undefined;
}

function renamed(input: Json, aliases: Readonly<Record<string, string>> = {}): Json {
  for (const [alias, name] of Object.entries(aliases)) {
    if (alias in input && !(name in input)) input[name] = input[alias];
  }
  return input;
}
