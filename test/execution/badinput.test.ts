/**
 * Every rule of the execution contract (BeamLine, ExecAssignment; ExecAssignmentAck; WorkerHeartbeat) broken on the bus: what is told, and what is left behind. Rules of results
 * are broken in lost.test.ts, those of requests in test/routing.
 */
import { createHash } from "node:crypto";
import { afterAll, beforeAll, expect } from "vitest";
import { publish } from "../../bus/publish.ts";
import { until } from "../kit/until.ts";
import { verifies } from "../kit/verifies.ts";
import { startWorld, type World } from "../kit/world.ts";
import { about, all, assign, assignment, byText, count, resultFor, usageFor, type Json } from "./kit.ts";

const ACK = "caf.exec.assign.v1.ack";

let world: World;
beforeAll(async () => {
  world = await startWorld({ workers: ["execution", "usage"], syncInterval: "10s" });
}, 90_000);
afterAll(() => world[Symbol.asyncDispose]());

const echo = { type: "echo", payload: { text: "hi" } };

verifies(
  "clear-failure",
  "an assignment that breaks a rule is rejected by its field, done by nobody, and stands on the workers' dead letters with its hash",
  async () => {
    const { bus } = world;
    const rules: [Json, string][] = [
      [{ version: undefined }, "version is required"],
      [{ version: "2" }, "version 2 is not supported; it must be 1"],
      [{ request_id: "" }, "request_id is required"],
      [{ request_id: "r".repeat(257) }, "request_id must have at most 256 characters"],
      [{ request_id: "\ud800" }, "request_id must be well-formed Unicode"],
      [{ executor: undefined }, "executor is required"],
      [{ executor: { channel: "nats" } }, "executor.provider_id is required"],
      [{ executor: { provider_id: "p" } }, "executor.channel is required"],
      [{ executor: { provider_id: "p", channel: "smoke" } }, "executor.channel must be nats or grpc"],
      [{ job: undefined }, "job is required"],
      [{ job: { payload: 1 } }, "job.type is required"],
      [{ job: { type: "echo" } }, "job.payload or job.payload_ref is required"],
      [{ options: { deadline_ms: -1 } }, "options.deadline_ms must not be negative"],
      [{ options: { priority: "high" } }, "options.priority must be a number"],
      [{ options: { retry: { max_attempts: "often" } } }, "options.retry.max_attempts must be a number"],
      [{ options: { retry: { backoff_ms: -1 } } }, "options.retry.backoff_ms must not be negative"],
      [{ correlation: { trace_id: 7 } }, "correlation.trace_id must be a string"],
      [{ job: { type: "t".repeat(4_097), payload: 1 } }, "job.type must have at most 4096 characters"],
      [{ metadata: 7 }, "metadata must be an object"],
    ];
    for (const [change, message] of rules) {
      const bad = { ...assignment(echo), ...change };
      const id = await assign(bus, bad);
      expect((await resultFor(bus, id)).body, message).toMatchObject({
        status: "error",
        error_code: message.endsWith("is required") ? "MISSING_REQUIRED_FIELD" : "INVALID_FORMAT",
        error_message: message,
        tenant_id: "acme",
      });
      expect((await resultFor(bus, id)).body).not.toHaveProperty("payload");
      const acks = await until(async () => {
        const found = await about(bus, "EXEC_ACKS", ACK, id);
        return found.length > 0 && found;
      }, "the rejection");
      expect(acks.map(({ body }) => [body["status"], body["message"]])).toEqual([["rejected", message]]);
      const [letter] = await about(bus, "DLQ", "caf.exec.dlq.v1", id);
      expect(letter?.headers["x-dlq-reason"]).toBe("validation_failed");
      expect(letter?.body).toMatchObject({
        status: "error",
        error_message: message,
        metadata: { original_payload_hash: createHash("sha256").update(JSON.stringify(bad)).digest("hex") },
      });
      await usageFor(bus, id);
    }
  },
  { timeout: 120_000 },
);

verifies("clear-failure", "an assignment nobody can be told about is a dead letter that holds it", async () => {
  const { bus } = world;
  const nameless: [string, string][] = [
    [JSON.stringify({ ...assignment(echo), assignment_id: "" }), "assignment_id"],
    [JSON.stringify({ ...assignment(echo), assignment_id: "a".repeat(257) }), "assignment_id"],
    [JSON.stringify({ ...assignment(echo), tenant_id: undefined }), "tenant_id"],
    ["{not json", "body"],
    ["[1]", "body"],
  ];
  for (const [body] of nameless) await publish(bus, "caf.exec.assign.v1", body);
  const letters = await until(async () => {
    const found = await all(bus, "DLQ", "dlq.EXEC.exec-workers");
    return found.length >= nameless.length && found;
  }, "the dead letters");
  const fields = letters.map(({ body }) => (body["context"] as { error: { field?: string } }).error.field);
  expect(fields.sort(byText)).toEqual(nameless.map(([, field]) => field).sort(byText));
  expect(letters.map(({ body }) => body["error_code"])).toEqual(nameless.map(() => "VALIDATION_FAILED"));
});

verifies(
  "clear-failure",
  "an acknowledgement that breaks a rule is a dead letter naming the field, and extends no deadline",
  async () => {
    const { bus } = world;
    const good = { assignment_id: "ack-rules", status: "accepted", tenant_id: "acme" };
    const rules: [unknown, string][] = [
      [{ ...good, assignment_id: undefined }, "assignment_id"],
      [{ ...good, assignment_id: "a".repeat(257) }, "assignment_id"],
      [{ ...good, status: undefined }, "status"],
      [{ ...good, status: "maybe" }, "status"],
      [{ ...good, tenant_id: undefined }, "tenant_id"],
      [{ ...good, acknowledged_at: "soon" }, "acknowledged_at"],
      [{ ...good, correlation: 7 }, "correlation"],
      [{ version: "v1", kind: "heartbeat", data: good }, "kind"],
      ["{not json", "body"],
    ];
    const usage = await count(bus, "USAGE", "beamline.usage.v1.metered");
    for (const [body] of rules) await publish(bus, ACK, typeof body === "string" ? body : JSON.stringify(body));
    const letters = await until(async () => {
      const found = await all(bus, "DLQ", `${ACK}.dlq`);
      return found.length >= rules.length && found;
    }, "the dead letters");
    const fields = letters.map(({ body }) => (body["context"] as { error: { field?: string } }).error.field);
    expect(fields.sort(byText)).toEqual(rules.map(([, field]) => field).sort(byText));
    for (const { body, headers } of letters) {
      expect(headers["x-dlq-reason"]).toBe("validation_failed");
      expect(body).toMatchObject({ original_subject: ACK, message: { payload: expect.anything() as unknown } });
    }
    expect(await count(bus, "USAGE", "beamline.usage.v1.metered")).toBe(usage);
  },
);
