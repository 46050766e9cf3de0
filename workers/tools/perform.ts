/** Running a tool that passed every gate: recorded first, within its time, its output judged (aiOS tools, 1.2). */
import { BeamlineError } from "../../contracts/errors.ts";
import { withSpan } from "../../runtime/trace.ts";
import { hashOf, MAX_LEVELS, tooDeep } from "./canonical.ts";
import { ToolFailure, reasonOf, systemCode } from "./failure.ts";
import type { Journey, Outcome, PipelinePorts } from "./pipeline.ts";
import { wordOutput } from "./schema.ts";
import { withoutSecrets } from "./secrets.ts";
import type { Call, Json } from "./tool.ts";
import { sealed, type Step } from "./undo.ts";

/** Kept back from the caller's deadline, so that the answer still reaches it, milliseconds. */
const MARGIN_MS = 100;
/** How long a tool that was told to stop may take to do so before it is left alone, milliseconds. */
const GRACE_MS = 1_000;

/** Never throws but for records that cannot be written before the tool runs. */
export async function perform(ports: PipelinePorts, journey: Journey): Promise<Outcome> {
  const { request, context, offered } = journey;
  const { definition, handler } = offered;
  const now = ports.clock.now();
  const timeoutMs = Math.max(1, Math.min(definition.timeout_ms, context.deadline - now - MARGIN_MS));
  const time = new Deadline(timeoutMs, context.signal);
  const steps: Step[] = [];
  const call = callOf(ports, journey, time.signal, steps);
  try {
    if (definition.reversible) journey.backupId = ports.ids.v4();
    const resolved = await ports.host.secrets.resolve(journey.input);
    journey.secrets = resolved.used;
    if (handler.changes === true) {
      steps.push(...((await time.hold(handler.prepare?.(resolved.input, call) ?? Promise.resolve([]))) ?? []));
      journey.known = await ports.executions.start({
        execution_id: journey.executionId,
        tenant: context.tenant,
        task_id: request.task_id,
        tool_name: request.tool_name,
        agent_id: request.agent_id,
        reason: request.reason.slice(0, 1_024),
        state: "started",
        input_hash: journey.inputHash === "" ? hashOf(journey.input) : journey.inputHash,
        idempotent: definition.idempotent,
        backup_id: journey.backupId,
        node: ports.host.node,
        steps,
        started_at: now,
        due_at: now + timeoutMs + 2 * GRACE_MS,
      });
    }
    const attributes = () => ({
      "tool.name": request.tool_name,
      "tool.agent": request.agent_id,
      tenant_id: context.tenant,
    });
    const output = await time.hold(
      withSpan(`tool ${request.tool_name}`, context.traceparent, attributes, (traceparent) =>
        handler.run(resolved.input, { ...call, traceparent }),
      ),
    );
    return judged(ports, journey, output);
  } catch (thrown) {
    // A record that cannot be written is no fault of the tool: nothing has been done, and the caller may try again.
    if (
      journey.known === undefined &&
      thrown instanceof BeamlineError &&
      handler.changes === true &&
      thrown.code !== "permission_denied"
    ) {
      if (!time.signal.aborted && thrown.code === "unavailable" && !thrown.message.includes("cannot be reached"))
        throw thrown;
    }
    return {
      success: false,
      output: "",
      error: withoutSecrets(worded(request.tool_name, thrown, time, timeoutMs), journey.secrets),
    };
  } finally {
    await seal(ports, journey, steps, call);
    time.end();
  }
}

/** What the tool left behind, for a rollback to compare with. */
async function seal(ports: PipelinePorts, journey: Journey, steps: readonly Step[], call: Call): Promise<void> {
  if (journey.known === undefined || steps.length === 0) return;
  try {
    const withFacts = await sealed(steps, { ...call, signal: AbortSignal.timeout(10_000) });
    journey.known = { ...journey.known, execution: { ...journey.known.execution, steps: withFacts } };
  } catch (thrown) {
    ports.log.warn("what a tool left behind could not be looked at", {
      execution_id: journey.executionId,
      error: thrown,
    });
  }
}

function judged(ports: PipelinePorts, { request, offered, secrets }: Journey, output: Json): Outcome {
  if (tooDeep(output))
    return {
      success: false,
      output: "",
      error: `${request.tool_name}: the output is nested deeper than ${MAX_LEVELS} levels`,
    };
  const violations = offered.checkOutput(output);
  if (violations.length > 0) return { success: false, output: "", error: wordOutput(request.tool_name, violations) };
  const text = withoutSecrets(JSON.stringify(output), secrets);
  const bytes = Buffer.byteLength(text);
  const limit = ports.limits.outputBytes;
  if (bytes > limit)
    return {
      success: false,
      output: "",
      error: `${request.tool_name}: the output of ${bytes} bytes is larger than ${limit} bytes`,
    };
  return { success: true, output: text, error: "" };
}

function worded(tool: string, thrown: unknown, time: Deadline, timeoutMs: number): string {
  if (time.late) return `${tool}: timed out after ${timeoutMs} ms and was stopped`;
  if (time.signal.aborted) return `${tool}: the call was cancelled`;
  if (thrown instanceof ToolFailure || thrown instanceof BeamlineError) return thrown.message;
  if (systemCode(thrown) !== "") return `${tool}: ${reasonOf(thrown)}`;
  return `${tool}: internal error`;
}

export function callOf(ports: PipelinePorts, journey: Journey, signal: AbortSignal, steps: Step[]): Call {
  const { request, context, executionId } = journey;
  return {
    tool: request.tool_name,
    tenant: context.tenant,
    agent: request.agent_id,
    task: request.task_id,
    reason: request.reason,
    executionId,
    traceparent: context.traceparent,
    signal,
    host: journey.fence === undefined ? ports.host : { ...ports.host, files: ports.host.files.fenced(journey.fence) },
    depth: 0,
    steps,
    undo(...more) {
      for (const step of more) {
        // Some is known before, the rest only afterwards: the revision of grants, what a package brought along.
        const before = steps.findIndex(
          (each) =>
            (each.op === "grants" && step.op === "grants" && each.agent === step.agent) ||
            (each.op === "run" && step.op === "run" && each.tool === step.tool),
        );
        if (before >= 0) steps[before] = step;
        else steps.push(step);
      }
    },
  };
}

/** G3. The time a tool has. */
class Deadline {
  readonly signal: AbortSignal;
  late = false;
  readonly #abort = new AbortController();
  readonly #timer: NodeJS.Timeout;
  readonly #caller: AbortSignal;
  readonly #onCaller = (): void => this.#abort.abort(this.#caller.reason);

  constructor(ms: number, caller: AbortSignal) {
    this.signal = this.#abort.signal;
    this.#caller = caller;
    this.#timer = setTimeout(() => {
      this.late = true;
      this.#abort.abort(new BeamlineError("deadline_exceeded", "the tool ran out of time"));
    }, ms);
    if (caller.aborted) this.#onCaller();
    else caller.addEventListener("abort", this.#onCaller, { once: true });
  }

  /** The work's result; a work that does not heed the signal is left behind after a grace. */
  async hold<T>(work: Promise<T>): Promise<T> {
    let timer: NodeJS.Timeout | undefined;
    let onAbort: (() => void) | undefined;
    const given = new Promise<never>((_, reject) => {
      onAbort = () => (timer = setTimeout(() => reject(this.signal.reason), GRACE_MS));
      if (this.signal.aborted) onAbort();
      else this.signal.addEventListener("abort", onAbort, { once: true });
    });
    try {
      return await Promise.race([work, given]);
    } finally {
      clearTimeout(timer);
      if (onAbort !== undefined) this.signal.removeEventListener("abort", onAbort);
      work.catch(() => undefined);
    }
  }

  end(): void {
    clearTimeout(this.#timer);
    this.#caller.removeEventListener("abort", this.#onCaller);
  }
}
