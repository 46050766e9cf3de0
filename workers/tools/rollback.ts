/**
 * Undoing an execution, by its id (aiOS tools, 1.3 backup and rollback).
 *
 * R1 An execution is undone once: the one who moves its record from `finished` to `undoing` does it.
 * R2 The agent it was done for must still be allowed to use the tool, and the one that undoes it, and is charged for it.
 * R3 What would not work is found out before the record is touched, so that a refused rollback can be asked for again.
 */
import { basename, dirname, join } from "node:path";
import { BeamlineError } from "../../contracts/errors.ts";
import type { CallContext } from "../../contracts/handlers.ts";
import { ExecuteRequest } from "../../contracts/gen/aios/tools.ts";
import { isoMicros } from "../../runtime/clock.ts";
import { wordDenied } from "./capabilities.ts";
import { bounded } from "./audit/bounded.ts";
import { isConflict, type Execution, type Known } from "./executions.ts";
import { ToolFailure } from "./failure.ts";
import type { Fence } from "./files/confine.ts";
import { callOf } from "./perform.ts";
import type { Journey, PipelinePorts } from "./pipeline.ts";
import type { Offered } from "./registry.ts";
import { checkUndo, undo, type Step } from "./undo.ts";

export interface Undone {
  readonly success: boolean;
  readonly error: string;
}

/** A step of undoing a task. */
export interface UndoneStep extends Undone {
  readonly execution_id: string;
  readonly tool_name: string;
}

const FORCE = /^\s*force\s*:/i;
/** Pause before the rate limit is asked again, milliseconds. */
const RATE_AGAIN_MS = 100;
/** Longest undoing, milliseconds; one that is older was interrupted. */
const LONGEST_MS = 120_000;

/** Asks the tools workers of another host to undo an execution there. Throws `unavailable` when none serves. */
export type AskHost = (
  node: string,
  executionId: string,
  reason: string,
  context: CallContext,
  patient: boolean,
) => Promise<Undone>;

export class Rollbacks {
  readonly #ports: PipelinePorts;
  readonly #askHost: AskHost;

  constructor(ports: PipelinePorts, askHost: AskHost) {
    this.#ports = ports;
    this.#askHost = askHost;
  }

  /**
   * Undoes one execution. Refusals travel in the answer; throws only when nothing can be read or recorded.
   * @param patient waits for the rate limit, as long as the caller does, instead of being refused by it
   */
  async rollback(executionId: string, reason: string, context: CallContext, patient = false): Promise<Undone> {
    const known = await this.#ports.executions.find(context.tenant, executionId);
    if (known === undefined)
      return { success: false, error: `there is no execution ${executionId} that could be rolled back` };
    return this.#undo(known, reason, context, patient);
  }

  /** Undoes what a task did, last things first. Goes on when a step fails, and says so. A task of many steps waits for the rate limit. */
  async rollbackTask(task: string, reason: string, context: CallContext): Promise<UndoneStep[]> {
    if (task === "") throw new BeamlineError("invalid_argument", "task_id must not be empty", { field: "task_id" });
    const done: UndoneStep[] = [];
    for (const known of (await this.#ports.executions.ofTask(context.tenant, task)).toReversed()) {
      const { execution_id, tool_name, state, steps } = known.execution;
      if (state === "undone" || (state === "finished" && steps.length === 0 && known.execution.success !== true))
        continue;
      done.push({ execution_id, tool_name, ...(await this.#undo(known, reason, context, true)) });
    }
    return done;
  }

  async #undo(known: Known, reason: string, context: CallContext, patient: boolean): Promise<Undone> {
    const { clock, ids, host } = this.#ports;
    const { node } = known.execution;
    if (node !== host.node) {
      try {
        return await this.#askHost(node, known.execution.execution_id, reason, context, patient);
      } catch (thrown) {
        const { code, message, details } = BeamlineError.from(thrown);
        const nobody = code === "unavailable" && details["subject"] !== undefined;
        const why = nobody ? "where no tools worker serves" : `which did not say what came of undoing it: ${message}`;
        return { success: false, error: `the execution ran on host ${node}, ${why}` };
      }
    }
    const started = clock.monotonic();
    const executionId = ids.v4();
    const { execution } = known;
    let undone: Undone;
    let offered: Offered | undefined;
    try {
      offered = await this.#ports.registry.find(context.tenant, execution.tool_name);
      undone = await this.#attempt(known, offered, reason, executionId, context, patient);
    } catch (thrown) {
      if (thrown instanceof BeamlineError && thrown.code !== "aborted") throw thrown;
      undone = { success: false, error: thrown instanceof Error ? thrown.message : String(thrown) };
    }
    this.#ports.measures.rolledBack(undone.success);
    await this.#audit(execution, offered, undone, executionId, reason, context, clock.monotonic() - started);
    return undone;
  }

  async #attempt(
    known: Known,
    offered: Offered | undefined,
    reason: string,
    executionId: string,
    context: CallContext,
    patient: boolean,
  ): Promise<Undone> {
    const { executions, clock } = this.#ports;
    const { execution } = known;
    const forced = FORCE.test(reason);
    const refusal = this.#refusal(execution, offered, forced);
    if (refusal !== undefined || offered === undefined) return { success: false, error: refusal ?? "" };
    const gates = await this.#gates(execution, offered, context, patient);
    if ("refusal" in gates) return { success: false, error: gates.refusal };
    const signal = AbortSignal.timeout(LONGEST_MS);
    const journey = { ...journeyOf(execution, offered, executionId, context), fence: gates.fence };
    const call = callOf(this.#ports, journey, signal, []);
    if (!forced) await checkUndo(execution.steps, call); // R3
    let claimed: Known;
    try {
      claimed = await executions.change(known, { state: "undoing", undone_by: executionId }, clock.now()); // R1
    } catch (thrown) {
      if (isConflict(thrown))
        return { success: false, error: `execution ${execution.execution_id} is being rolled back by someone else` };
      throw thrown;
    }
    try {
      await undo(execution.steps, call, forced);
    } catch (thrown) {
      await executions.change(claimed, { state: "finished" }, clock.now());
      if (thrown instanceof ToolFailure) return { success: false, error: thrown.message };
      throw thrown;
    }
    await executions.change(claimed, { state: "undone" }, clock.now());
    return { success: true, error: "" };
  }

  #refusal(execution: Execution, offered: Offered | undefined, forced: boolean): string | undefined {
    const { state, steps, execution_id, tool_name } = execution;
    if (state === "undone") return `execution ${execution_id} was rolled back before`;
    if (state === "undoing" && !(forced && this.#ports.clock.now() - (execution.changed_at ?? 0) > LONGEST_MS)) {
      return `execution ${execution_id} is being rolled back, or its rollback was interrupted; ${LONGEST_MS / 1_000} seconds after it began a reason beginning with "force:" undoes what is left`;
    }
    if ((state === "started" || state === "unknown") && !forced) {
      return `the outcome of execution ${execution_id} is unknown; a reason beginning with "force:" undoes what can be undone`;
    }
    if (offered === undefined) return `the tool ${tool_name} is gone`;
    if (steps.length === 0) return `${tool_name} cannot be rolled back`;
    if (execution.success === false && !forced)
      return `execution ${execution_id} failed; a reason beginning with "force:" undoes what it may have done`;
    return undefined;
  }

  /** R2. The fence of grants that hold for some paths only goes along: a rollback reaches no further than the call did. */
  async #gates(
    execution: Execution,
    offered: Offered,
    context: CallContext,
    patient: boolean,
  ): Promise<{ readonly refusal: string } | { readonly fence: Fence | undefined }> {
    const { grants, rate, registry, clock, host } = this.#ports;
    const { tenant } = context;
    const opposites = execution.steps.flatMap((step) => (step.op === "run" ? registry.find(tenant, step.tool) : []));
    const needs = [offered, ...(await Promise.all(opposites))].flatMap((each) => each?.needs ?? []);
    const { missing, known, fence } = await grants.check(tenant, execution.agent_id, [...new Set(needs)], async () =>
      // By the name the thing itself has: what a link at the end points to is not what a step is about.
      Promise.all(
        execution.steps
          .flatMap(touched)
          .map(async (path) => join(await host.files.canonical(dirname(path)), basename(path))),
      ),
    );
    if (missing.length > 0 || !known) return { refusal: wordDenied(missing) };
    while (!(await rate.take(tenant, execution.agent_id, execution.tool_name))) {
      if (!patient) return { refusal: "Rate limit exceeded" };
      await clock.sleep(RATE_AGAIN_MS, context.signal);
    }
    return { fence };
  }

  async #audit(
    execution: Execution,
    offered: Offered | undefined,
    undone: Undone,
    executionId: string,
    reason: string,
    context: CallContext,
    durationMs: number,
  ): Promise<void> {
    try {
      await this.#ports.ledger.append(context.tenant, {
        execution_id: executionId,
        tool_name: execution.tool_name,
        agent_id: execution.agent_id,
        task_id: execution.task_id,
        reason: bounded.text(reason),
        success: undone.success,
        duration_ms: Math.round(durationMs),
        timestamp: isoMicros(this.#ports.clock.micros()),
        rollback_of: execution.execution_id,
        node: this.#ports.host.node,
        ...(offered !== undefined && { risk_level: offered.checkedRisk }),
        ...(undone.error !== "" && { error: bounded.text(undone.error) }),
        ...(context.principal !== "" && { principal: context.principal }),
      });
    } catch (thrown) {
      this.#ports.log.error("a rollback could not be audited", { execution_id: execution.execution_id, error: thrown });
    }
  }
}

/** Paths a step changes; of directories made on the way the last, since grants need not reach those above it. */
function touched(step: Step): readonly string[] {
  if (step.op === "rmdir") return step.paths.slice(-1);
  if (step.op === "move") return [step.to];
  return "path" in step ? [step.path] : [];
}

/** The call a rollback is carried out as: the agent's and the task's of the execution it undoes. */
function journeyOf(execution: Execution, offered: Offered, executionId: string, context: CallContext): Journey {
  const { tool_name, agent_id, task_id, reason, backup_id, input_hash } = execution;
  return {
    request: ExecuteRequest.fromPartial({ tool_name, agent_id, task_id, reason }),
    context,
    offered,
    executionId,
    backupId: backup_id,
    input: {},
    inputHash: input_hash,
    approvalId: undefined,
    secrets: [],
    replayed: undefined,
    claimRevision: 0,
    known: undefined,
    fence: undefined,
  };
}
