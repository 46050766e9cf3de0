/** What the execution stream says about assignments, live and from its past. */
import { asking } from "../bus/apierror.ts";
import type { Bus } from "../bus/connect.ts";
import { execSubject } from "../contracts/execution/subjects.ts";
import { streams } from "../contracts/streams.ts";

export interface ExecEvent {
  readonly subject: string;
  /** Epoch milliseconds. */
  readonly at: number;
  readonly tenant: string;
  readonly body: Readonly<Record<string, unknown>>;
}

/** Every other subject of the stream is one that assignments go to. */
const kinds: Readonly<Record<string, string>> = {
  [execSubject.ack]: "ack",
  [execSubject.result]: "result",
};

/** The subjects of assignments, acknowledgements and results, those of this deployment included. Throws `unavailable`, `not_found`. */
async function subjectsOf(bus: Bus): Promise<string[]> {
  const { config } = await asking("look at the execution stream", () => bus.jsm.streams.info(streams.exec.name));
  return config.subjects.filter((subject) => !/^(retry|sched)\./.test(subject));
}

/** Calls back with every message as it is published. Gives back how to stop. Throws `unavailable`, `not_found` without the stream. */
export async function followExec(bus: Bus, onEvent: (event: ExecEvent) => void): Promise<() => void> {
  const subscriptions = (await subjectsOf(bus)).map((subject) =>
    bus.nc.subscribe(subject, {
      callback: (_error, message) =>
        onEvent(eventOf(subject, Date.now(), message.headers?.get("tenant_id") ?? "", message.string())),
    }),
  );
  return () => {
    for (const subscription of subscriptions) subscription.unsubscribe();
  };
}

/** Everything about one assignment that the stream still has, in order. Throws `unavailable`, `not_found` without the stream. */
export async function historyOf(bus: Bus, id: string): Promise<ExecEvent[]> {
  const subjects = await subjectsOf(bus);
  const { consumer, pending } = await asking("read the execution stream", async () => {
    const made = await bus.js.consumers.get(streams.exec.name, { filter_subjects: subjects });
    return { consumer: made, pending: (await made.info()).num_pending };
  });
  const found: ExecEvent[] = [];
  let left = pending;
  if (left > 0) {
    const messages = await consumer.consume({ max_messages: 500 });
    for await (const message of messages) {
      const event = eventOf(
        message.subject,
        message.time.getTime(),
        message.headers?.get("tenant_id") ?? "",
        message.string(),
      );
      if (event.body["assignment_id"] === id) found.push(event);
      if (--left <= 0) break;
    }
    messages.stop();
  }
  await consumer.delete();
  return found;
}

/** One line of a table. */
export function rowOf({ subject, at, tenant, body }: ExecEvent): Record<string, unknown> {
  const job = body["job"] as { type?: unknown } | undefined;
  return {
    time: new Date(at).toISOString().slice(11, 23),
    what: kinds[subject] ?? "assignment",
    assignment: body["assignment_id"],
    tenant,
    status: body["status"] ?? "",
    job: typeof job?.type === "string" ? job.type : "",
    detail: body["error_message"] ?? body["message"] ?? "",
  };
}

function eventOf(subject: string, at: number, tenant: string, text: string): ExecEvent {
  let body: Record<string, unknown> = {};
  try {
    const parsed = JSON.parse(text) as Record<string, unknown>;
    // The Rust worker's envelope.
    body =
      typeof parsed["data"] === "object" && parsed["data"] !== null && "kind" in parsed
        ? (parsed["data"] as Record<string, unknown>)
        : parsed;
  } catch {
    // Protobuf, or nobody's.
  }
  return { subject, at, tenant: tenant || ((body["tenant_id"] as string | undefined) ?? ""), body };
}
