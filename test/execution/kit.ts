/** What the tests of assignments share: publishing one, and reading what the streams say about it. */
import type { Bus } from "../../bus/connect.ts";
import { publish } from "../../bus/publish.ts";
import { systemIds } from "../../runtime/ids.ts";
import { until } from "../kit/until.ts";

export type Json = Record<string, unknown>;

export interface Stored {
  readonly subject: string;
  readonly seq: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Json;
}

/** An assignment as the router publishes it. */
export function assignment(job: Json, more: Json = {}): Json & { assignment_id: string } {
  return {
    version: "1",
    assignment_id: systemIds.v4(),
    request_id: `req-${systemIds.v4()}`,
    tenant_id: "acme",
    executor: { provider_id: "p1", channel: "nats" },
    job,
    options: { priority: 50, deadline_ms: 5_000, retry: { max_attempts: 2, backoff_ms: 20 } },
    correlation: { trace_id: "trace-1" },
    ...more,
  };
}

export async function assign(
  bus: Bus,
  given: Json & { assignment_id: string },
  headers: Record<string, string> = {},
): Promise<string> {
  await publish(bus, "caf.exec.assign.v1", JSON.stringify(given), { msgId: given.assignment_id, headers });
  return given.assignment_id;
}

/** Every message of a stream on a subject, in order. */
export async function all(bus: Bus, stream: string, subject: string): Promise<Stored[]> {
  const found: Stored[] = [];
  let from = 1;
  for (;;) {
    const request = { seq: from, next_by_subj: subject };
    const message = await bus.jsm.direct.getMessage(stream, request).catch(() => null);
    if (message === null) return found;
    const headers = Object.fromEntries(message.header.keys().map((name) => [name, message.header.get(name)]));
    found.push({ subject: message.subject, seq: message.seq, headers, body: jsonIn(message.string()) });
    from = message.seq + 1;
  }
}

/** How many messages a stream holds on a subject. */
export async function count(bus: Bus, stream: string, subject: string): Promise<number> {
  const { state } = await bus.jsm.streams.info(stream, { subjects_filter: subject });
  return state.subjects?.[subject] ?? 0;
}

export async function about(bus: Bus, stream: string, subject: string, id: string): Promise<Stored[]> {
  return (await all(bus, stream, subject)).filter(({ body }) => body["assignment_id"] === id);
}

/** Waits for the result of an assignment. */
export function resultFor(bus: Bus, id: string, deadlineMs?: number): Promise<Stored> {
  return until(async () => (await about(bus, "EXEC", "caf.exec.result.v1", id))[0], `a result of ${id}`, deadlineMs);
}

export function usageFor(bus: Bus, id: string, deadlineMs?: number): Promise<Stored> {
  return until(
    async () => (await about(bus, "USAGE", "beamline.usage.v1.metered", id))[0],
    `usage of ${id}`,
    deadlineMs,
  );
}

/** Empty for what is not JSON. */
function jsonIn(text: string): Json {
  try {
    return JSON.parse(text) as Json;
  } catch {
    return {};
  }
}

export function byText(a: unknown, b: unknown): number {
  return String(a) < String(b) ? -1 : 1;
}
