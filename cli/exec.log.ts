/** What the execution streams say about assignments, live and from their past. */
import { asking } from "../bus/apierror.ts";
import type { Bus } from "../bus/connect.ts";
import { objectOrText, text as textIn } from "../contracts/execution/reading.ts";
import { execSubject } from "../contracts/execution/subjects.ts";
import { streams, type StreamSpec } from "../contracts/streams.ts";

export interface ExecEvent {
  readonly subject: string;
  /** Epoch milliseconds, with fractions where the stream tells them. */
  readonly at: number;
  readonly tenant: string;
  readonly body: Readonly<Record<string, unknown>>;
}

/** Every other subject is one that assignments go to. */
const kinds: Readonly<Record<string, string>> = {
  [execSubject.ack]: "ack",
  [execSubject.result]: "result",
};

const kept = [streams.exec, streams.execAcks];

/** A stream's subjects, those of this deployment included. Throws `unavailable`, `not_found`. */
async function subjectsOf(bus: Bus, { name }: StreamSpec): Promise<string[]> {
  const { config } = await asking("look at the execution streams", () => bus.jsm.streams.info(name));
  return config.subjects.filter((subject) => !/^(retry|sched)\./.test(subject));
}

/** Calls back with every message as it is published. Gives back how to stop. Throws `unavailable`, `not_found` without the streams. */
export async function followExec(bus: Bus, onEvent: (event: ExecEvent) => void): Promise<() => void> {
  const subjects = (await Promise.all(kept.map((stream) => subjectsOf(bus, stream)))).flat();
  const subscriptions = subjects.map((subject) =>
    bus.subscribe(subject, (message) =>
      onEvent(eventOf(subject, Date.now(), message.headers?.get("tenant_id") ?? "", message.string())),
    ),
  );
  return () => {
    for (const subscription of subscriptions) subscription.unsubscribe();
  };
}

/** Everything about one assignment that the streams still have, in order. Throws `unavailable`, `not_found` without the streams. */
export async function historyOf(bus: Bus, id: string): Promise<ExecEvent[]> {
  const found = (await Promise.all(kept.map((stream) => partOf(bus, stream, id)))).flat();
  return found.toSorted((a, b) => placeOf(a) - placeOf(b));
}

/** A result may be on the disk before the acknowledgement that was published just before it. */
function placeOf({ subject, at }: ExecEvent): number {
  return subject === execSubject.result ? at + 1_000 : at;
}

async function partOf(bus: Bus, stream: StreamSpec, id: string): Promise<ExecEvent[]> {
  const subjects = await subjectsOf(bus, stream);
  const { consumer, pending } = await asking("read the execution streams", async () => {
    const made = await bus.js.consumers.get(stream.name, { filter_subjects: subjects });
    return { consumer: made, pending: (await made.info()).num_pending };
  });
  const found: ExecEvent[] = [];
  let left = pending;
  try {
    if (left === 0) return found;
    const messages = await consumer.consume({ max_messages: 500 });
    for await (const message of messages) {
      const event = eventOf(
        message.subject,
        Number(message.timestampNanos / 1_000n) / 1_000,
        message.headers?.get("tenant_id") ?? "",
        message.string(),
      );
      if (event.body["assignment_id"] === id) found.push(event);
      if (--left <= 0) break;
    }
    messages.stop();
    return found;
  } finally {
    await consumer.delete();
  }
}

/** One line of a table. */
export function rowOf({ subject, at, tenant, body }: ExecEvent): Record<string, unknown> {
  return {
    time: new Date(at).toISOString().slice(11, 23),
    what: kinds[subject] ?? "assignment",
    assignment: body["assignment_id"],
    tenant,
    status: body["status"] ?? "",
    job: jobType(body),
    detail: body["error_message"] ?? body["message"] ?? "",
  };
}

/** In every shape results have in the wild (BeamLine, ExecResult): an object, its text, or `job_type`. */
function jobType(body: ExecEvent["body"]): string {
  try {
    return textIn(objectOrText(body, "job") ?? {}, "type") || textIn(body, "job_type");
  } catch {
    return "";
  }
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
