/** A kind of job: what its input looks like, what it does, and whether doing it twice would matter. */
import type { Assignment } from "../../contracts/execution/assignment.ts";
import type { JsonObject } from "../../contracts/codec.ts";
import { StepFailure, type Output } from "./step.ts";

/** What a job knows about where it belongs. */
export interface JobContext {
  readonly assignment: Assignment;
  /** 1 for the first attempt. */
  readonly attempt: number;
  /** Epoch milliseconds by which it has to be done. */
  readonly deadline: number;
  /** Aborts at the deadline, on cancellation, and when the process stops. */
  readonly signal: AbortSignal;
  readonly traceparent: string;
}

/** A handler of one or more job types. */
export interface Job {
  readonly types: readonly string[];
  /** `once` when repeating the effect would do harm; `repeatable` otherwise. A function where it depends on the input. */
  readonly effect: "repeatable" | "once" | ((input: unknown) => "repeatable" | "once");
  /** Throws `StepFailure`, or anything, which counts as `EXECUTION_FAILED`. */
  run(input: unknown, context: JobContext): Promise<Output>;
}

/** The jobs a worker knows, by type. */
export class Jobs {
  readonly #byType = new Map<string, Job>();

  constructor(jobs: Iterable<Job>) {
    for (const job of jobs) this.register(job);
  }

  /** A later job takes the place of an earlier one of the same type. */
  register(job: Job): void {
    for (const type of job.types) this.#byType.set(type, job);
  }

  find(type: string): Job | undefined {
    return this.#byType.get(type);
  }

  get types(): readonly string[] {
    return [...this.#byType.keys()].sort();
  }
}

export function effectOf(job: Job, input: unknown): "repeatable" | "once" {
  return typeof job.effect === "function" ? job.effect(input) : job.effect;
}

/** The input as an object; `{}` when there is none. Throws `INVALID_INPUT`. */
export function objectInput(input: unknown): JsonObject {
  if (input === undefined || input === null) return {};
  if (typeof input === "object" && !Array.isArray(input)) return input as JsonObject;
  throw new StepFailure("INVALID_INPUT", "job.payload must be an object");
}

/** A text of the input. Throws `MISSING_REQUIRED_FIELD`, `INVALID_INPUT`. */
export function textInput(input: JsonObject, name: string): string {
  const value = input[name];
  if (value === undefined || value === null || value === "")
    throw new StepFailure("MISSING_REQUIRED_FIELD", `job.payload.${name} is required`);
  if (typeof value !== "string") throw new StepFailure("INVALID_INPUT", `job.payload.${name} must be a string`);
  return value;
}
