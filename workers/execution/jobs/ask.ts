/**
 * Jobs a provider does: asked over the bus through `beamline.provider.v1`, whichever worker serves it (BeamLine, provider).
 *
 * A1 A bus that goes away meanwhile fails no attempt: the provider's answer is on its way or kept by its key, and is asked for again once the bus,
 *    and with it the worker that serves providers, is back; at the latest until the job's deadline.
 */
import { setTimeout as pause } from "node:timers/promises";
import type { Caller } from "../../../bus/call.ts";
import type { Bus } from "../../../bus/connect.ts";
import { isStepErrorCode } from "../../../contracts/execution/catalogue.ts";
import type { JsonObject } from "../../../contracts/codec.ts";
import { ProviderDefinition } from "../../../contracts/gen/beamline/provider/v1/provider.ts";
import { BeamlineError } from "../../../contracts/errors.ts";
import { header } from "../../../contracts/headers.ts";
import { routesOf } from "../../../contracts/routes.ts";
import type { Job, JobContext } from "../job.ts";
import { StepFailure, type Output } from "../step.ts";

const { subject, worker } = routesOf(ProviderDefinition).invoke;

/** The types whose executor is a provider. */
export const providerTypes = ["chat", "completion", "embedding", "text.generate", "ai.generate"] as const;

/** A1: how long other processes may take to be back after this one is, and between two questions meanwhile, milliseconds. */
const BACK_MS = 3_000;
const AGAIN_MS = 100;

/** The provider of the decision answers; the answer is the output, its cost and figures come with it. `bus` is the caller's own. */
export function askJob(caller: Caller, bus: Bus): Job {
  let changed = Number.NEGATIVE_INFINITY;
  const note = (): void => void (changed = performance.now());
  bus.onDisconnect(note);
  bus.onReconnect(note);
  const isAway = (): boolean => !bus.connected || performance.now() - changed < BACK_MS;
  return {
    types: providerTypes,
    effect: "repeatable",
    async run(input, context) {
      for (;;) {
        try {
          return outputOf(await ask(caller, input, context));
        } catch (thrown) {
          if (!isUnavailable(thrown) || !isAway()) throw thrown;
          await pause(AGAIN_MS, undefined, { signal: context.signal }); // A1
        }
      }
    },
  };
}

/** Whether the worker that serves providers could not be asked. What it answers itself has no such cause. */
function isUnavailable(thrown: unknown): boolean {
  return thrown instanceof StepFailure && thrown.cause instanceof BeamlineError && thrown.cause.code === "unavailable";
}

async function ask(
  caller: Caller,
  input: unknown,
  { assignment, deadline, signal, traceparent }: JobContext,
): Promise<JsonObject> {
  const { tenant_id, assignment_id, executor, job, correlation, metadata } = assignment;
  const request = {
    provider_id: executor.provider_id,
    message_id: assignment_id,
    tenant_id,
    trace_id: correlation.trace_id,
    body: typeof input === "string" ? input : JSON.stringify(input ?? {}),
    parameters: parametersIn(input),
    metadata: { ...metadata, message_type: job.type },
    timestamp_ms: Date.now(),
  };
  const headers = {
    [header.tenantId]: tenant_id,
    [header.deadline]: String(deadline),
    // One answer per assignment, however often it is asked.
    [header.idempotencyKey]: assignment_id,
    ...(traceparent !== "" && { [header.traceparent]: traceparent }),
  };
  try {
    return (await caller.request(subject, request, {
      headers,
      timeoutMs: Math.max(1, deadline - Date.now()),
      signal,
      worker,
    })) as JsonObject;
  } catch (thrown) {
    const error = BeamlineError.from(thrown);
    if (error.code === "unavailable") throw new StepFailure("RESOURCE_UNAVAILABLE", error.message, { cause: error });
    throw StepFailure.from(error);
  }
}

/** Settings of the input that are not its content. */
function parametersIn(input: unknown): Record<string, string> {
  const given = typeof input === "object" && input !== null && "parameters" in input ? input.parameters : undefined;
  if (typeof given !== "object" || given === null) return {};
  return Object.fromEntries(
    Object.entries(given).map(([name, value]) => [name, typeof value === "string" ? value : JSON.stringify(value)]),
  );
}

function outputOf(reply: JsonObject): Output {
  const { status, body, cost, metadata, error_code, error_message } = reply;
  if (status !== "success") {
    const code =
      typeof error_code === "string" && isStepErrorCode(error_code)
        ? error_code
        : status === "timeout"
          ? "CONNECTION_TIMEOUT"
          : "EXECUTION_FAILED";
    const labels = typeof metadata === "object" && metadata !== null ? (metadata as JsonObject) : {};
    const retryable = labels["retryable"];
    throw new StepFailure(code, typeof error_message === "string" ? error_message : "the provider failed", {
      ...(typeof retryable === "string" && { retryable: retryable === "true" }),
    });
  }
  return {
    payload: parsed(typeof body === "string" ? body : ""),
    cost: typeof cost === "number" ? cost : 0,
    ...(typeof metadata === "object" && metadata !== null && { metadata: metadata as Record<string, string> }),
  };
}

function parsed(body: string): unknown {
  if (!/^\s*[[{]/.test(body)) return body;
  try {
    return JSON.parse(body);
  } catch {
    return body;
  }
}
