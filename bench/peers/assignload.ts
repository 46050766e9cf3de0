/** Assignments from their publication to the result in a consumer's hands, or bare durable publishes, one after another. */
import { randomUUID } from "node:crypto";
import { publish } from "../../bus/publish.ts";
import type { Load } from "../case.ts";
import { awaited, runLoad } from "../kit/load.ts";
import { connectOurs } from "../kit/login.ts";
import { servePeer } from "../kit/peer.ts";

export interface AssignLoad {
  readonly what: "assignment" | "publish";
  /** Subject of the bare publishes. */
  readonly subject: string;
  readonly inFlight: number;
  readonly count: number;
}

const bus = await connectOurs("bench-assign");
const waiting = new Map<string, () => void>();
const consumer = await bus.js.consumers.get("EXEC", {
  filter_subjects: ["caf.exec.result.v1"],
  deliver_policy: "new",
  inactive_threshold: 300_000,
});
await consumer.consume({
  callback(message) {
    const { assignment_id } = message.json<{ assignment_id: string }>();
    waiting.get(assignment_id)?.();
    waiting.delete(assignment_id);
  },
});

function assignment(id: string): string {
  return JSON.stringify({
    version: "1",
    assignment_id: id,
    request_id: id,
    tenant_id: "acme",
    executor: { provider_id: "openai", channel: "nats" },
    job: { type: "echo", payload: { text: "Summarise the quarterly report in three sentences." } },
    options: { priority: 50, deadline_ms: 5_000, retry: { max_attempts: 2, backoff_ms: 200 } },
  });
}

servePeer({}, ({ what, subject, inFlight, count }: AssignLoad): Promise<Load> => {
  const assign = async (): Promise<void> => {
    const id = randomUUID();
    const result = new Promise<void>((resolve) => waiting.set(id, resolve));
    await publish(bus, "caf.exec.assign.v1", assignment(id), { msgId: id });
    await result;
  };
  const bare = async (): Promise<void> => {
    const id = randomUUID();
    await publish(bus, subject, assignment(id), { msgId: id });
  };
  return runLoad(count, inFlight, awaited(what === "assignment" ? assign : bare));
});
