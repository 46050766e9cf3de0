/**
 * Tasks of the control surface: decided as a request of the extended form, and handed on as an assignment of the same id.
 *
 * T1 The record is there before the assignment is published, so a result always finds it; a request that is repeated publishes the same id again,
 *    which is nothing.
 * T2 Results are consumed durably and once: the record ends in the first of them.
 */
import { consume, type Consumption } from "../../../bus/consume.ts";
import type { Bus } from "../../../bus/connect.ts";
import type { Caller } from "../../../bus/call.ts";
import { publishRetrying } from "../../../bus/retrying.ts";
import type { Answer } from "../../../bus/endpoint.ts";
import type { JsonObject } from "../../../contracts/codec.ts";
import { assignmentOf, type AssignmentDecision } from "../../../contracts/execution/assignment.ts";
import { readResult, resultJson, type Result } from "../../../contracts/execution/result.ts";
import { execSubject } from "../../../contracts/execution/subjects.ts";
import { header } from "../../../contracts/headers.ts";
import { streams } from "../../../contracts/streams.ts";
import type { Logger } from "../../../runtime/log.ts";
import { readRequest } from "../intake/forms.ts";
import type { ControlRequest } from "./door.ts";
import type { Tell } from "./events.ts";
import { neededObject, optionalObject, optionalText } from "./inputs.ts";
import type { Records, Task } from "./records.nats.ts";

/** What is asked for, as the extended form has it. */
export interface Asked {
  readonly task: Readonly<JsonObject>;
  readonly policy_id?: string;
  readonly context: Readonly<JsonObject>;
  readonly options: Readonly<JsonObject>;
}

export interface TaskPorts {
  readonly bus: Bus;
  readonly caller: Caller;
  readonly records: Records;
  readonly tell: Tell;
  /** The decide subject's own answer. */
  readonly decide: Answer;
  /** Epoch milliseconds. */
  readonly now: () => number;
  readonly log: Logger;
}

export class Tasks {
  readonly #ports: TaskPorts;
  /** Told of every task that ended. Chats listen. */
  onFinished: (tenant: string, task: Task) => Promise<void> = async () => undefined;

  constructor(ports: TaskPorts) {
    this.#ports = ports;
  }

  askedIn(body: Readonly<JsonObject>): Asked {
    const policy_id = optionalText(body, "policy_id");
    return {
      task: neededObject(body, "task"),
      context: optionalObject(body, "context"),
      options: optionalObject(body, "options"),
      ...(policy_id !== undefined && { policy_id }),
    };
  }

  /** T1. Throws what deciding refuses. */
  async submit(
    request: ControlRequest,
    asked: Asked,
    of: Pick<Task, "project_id" | "chat_id">,
  ): Promise<Task & { readonly decision?: JsonObject }> {
    const { bus, records, decide, now, tell } = this.#ports;
    const { tenant, traceId, call } = request;
    let decision: JsonObject | undefined;
    const wanted = (task_id: string): string =>
      JSON.stringify({ version: "1", request_id: task_id, trace_id: traceId, tenant_id: tenant, ...asked });
    const { value: task, fresh } = await records.make("task", request, async (task_id) => {
      const reply = JSON.parse(await decide(wanted(task_id), call)) as { decision: JsonObject };
      decision = reply.decision;
      return {
        task_id,
        type: String(asked.task["type"]),
        ...of,
        status: "submitted",
        provider_id: String(decision["provider_id"]),
        submitted_at_ms: now(),
      };
    });
    if (task.status !== "submitted") return task;
    const text = wanted(task.task_id);
    // A repetition after a crash has only what the record holds.
    const chosen = decision ?? { provider_id: task.provider_id, reason: "weighted", priority: 50 };
    const { subject, body, headers, msgId } = assignmentOf(
      readRequest(text, JSON.parse(text) as JsonObject, {}),
      decisionOf(chosen),
      { assignmentId: task.task_id, traceparent: call.traceparent },
    );
    // A chat would wait for an answer that nobody was asked for.
    await publishRetrying(bus, subject, body, { msgId, headers });
    if (fresh) tell(tenant, "task.submitted", task, traceId);
    return { ...task, ...(decision && { decision }) };
  }

  /** The task as it is, `status` `cancelling` while its worker is being told. Throws `not_found`, `unavailable`. */
  async cancel(tenant: string, id: string): Promise<object> {
    const { records, caller } = this.#ports;
    const task = await records.get("task", tenant, id);
    if (task.status !== "submitted") return task;
    const asked = { assignment_id: id, tenant_id: tenant, reason: "task.cancel" };
    await caller.request(execSubject.cancel, asked, {
      timeoutMs: 4_000,
      worker: "usage",
      headers: { [header.tenantId]: tenant },
    });
    return { ...task, status: "cancelling" };
  }

  /** T2. */
  follow(): Promise<Consumption> {
    const { bus, log, records, tell, now } = this.#ports;
    return consume(bus, {
      stream: streams.exec,
      durable: "router-control",
      filterSubjects: [execSubject.result],
      concurrency: 16,
      maxDeliver: 10,
      backoffMs: [1_000, 2_000, 4_000],
      handler: async (payload, { headers, timestampMs }) => {
        let result: Result;
        try {
          ({ result } = readResult(payload, headers, timestampMs));
        } catch {
          return; // A dead letter of the usage worker's.
        }
        const { tenant_id: tenant, assignment_id: id } = result;
        if (tenant === "" || id === "" || (await records.find("task", tenant, id)) === undefined) return;
        let first = false;
        const task = await records.change("task", tenant, id, (one) => {
          first = one.status === "submitted";
          return first ? { ...one, status: result.status, finished_at_ms: now(), result: resultJson(result) } : one;
        });
        await this.onFinished(tenant, task);
        if (first) tell(tenant, "task.finished", task, result.trace_id);
      },
      onEvent(event) {
        if (event.type === "trouble" || event.type === "undecided" || event.type === "dead")
          log.warn("results of control tasks are in trouble", { error: event.error });
      },
    });
  }
}

function decisionOf(given: JsonObject): AssignmentDecision {
  const number = (name: string): number => (typeof given[name] === "number" ? given[name] : 0);
  return {
    provider_id: String(given["provider_id"]),
    reason: String(given["reason"]),
    priority: number("priority"),
    expected_latency_ms: number("expected_latency_ms"),
    expected_cost: number("expected_cost"),
    metadata: (given["metadata"] ?? {}) as Readonly<Record<string, string>>,
  };
}
