/** Assignments nobody answers, and those someone wants stopped. No execution worker of ours runs until a test starts one. */
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { publish } from "../../bus/publish.ts";
import { ExecResult } from "../../contracts/gen/beamline/worker/v1/result.ts";
import { startWorld, type World } from "../kit/world.ts";
import { until } from "../kit/until.ts";
import { verifies } from "../kit/verifies.ts";
import { about, byText, all, assign, assignment, count, resultFor, usageFor } from "./kit.ts";

let world: World;
let server: Server;
let posts = 0;
beforeAll(async () => {
  server = createServer((request, response) => {
    if (request.method === "POST") posts++;
    if (request.url === "/hang") return;
    response.statusCode = request.url === "/down" ? 503 : 200;
    response.end(JSON.stringify({ seen: request.method }));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  world = await startWorld({
    workers: ["usage"],
    processes: true,
    syncInterval: "10s",
    env: {
      BEAMLINE_EXEC_GRACE_MS: "200",
      BEAMLINE_EXEC_EGRESS_ALLOW: "127.0.0.1",
      BEAMLINE_ALERT_EVERY_MS: "300",
      BEAMLINE_ALERT_DLQ_GROWTH: "2",
    },
  });
}, 90_000);
afterAll(async () => {
  await world[Symbol.asyncDispose]();
  server.closeAllConnections();
  server.close();
});

const short = { options: { deadline_ms: 500, retry: { max_attempts: 2, backoff_ms: 20 } } };
const url = (path: string): string => `http://127.0.0.1:${(server.address() as AddressInfo).port}${path}`;

describe("without a worker", () => {
  verifies(
    "clear-failure",
    "an assignment without an answer is published again, then ends as a timeout, and is metered",
    async () => {
      const { bus } = world;
      const id = await assign(bus, assignment({ type: "echo", payload: 1 }, short));
      const result = await resultFor(bus, id);
      expect(result.body).toMatchObject({
        status: "timeout",
        error_code: "CANCELLED_BY_TIMEOUT",
        provider_id: "p1",
        tenant_id: "acme",
        metadata: { reported_by: "router", publications: "2" },
      });
      const published = await about(bus, "EXEC", "caf.exec.assign.v1", id);
      expect(published.map(({ headers }) => headers["Beamline-Publication"])).toEqual([undefined, "2"]);
      expect((await usageFor(bus, id)).body).toMatchObject({ status: "timeout" });
      await until(
        async () =>
          (await all(bus, "ALERTS", "beamline.alert.v1.warning")).some(
            ({ body }) => (body["metadata"] as { assignment_id?: string }).assignment_id === id,
          ),
        "an alert",
      );
    },
  );

  test("an accepted assignment gets its whole deadline from then, and no second publication while it lasts", async () => {
    const { bus } = world;
    const id = await assign(
      bus,
      assignment({ type: "echo", payload: 1 }, { options: { deadline_ms: 1_000, retry: { max_attempts: 2 } } }),
    );
    await publish(
      bus,
      "caf.exec.assign.v1.ack",
      JSON.stringify({ assignment_id: id, status: "accepted", tenant_id: "acme" }),
    );
    await publish(
      bus,
      "caf.exec.result.v1",
      JSON.stringify({
        assignment_id: id,
        status: "success",
        provider_id: "x",
        job: { type: "echo" },
        tenant_id: "acme",
      }),
    );
    await usageFor(bus, id);
    expect(await about(bus, "EXEC", "caf.exec.assign.v1", id)).toHaveLength(1);
  });

  test("a cancelled assignment that nobody took ends as cancelled", async () => {
    const { bus, caller } = world;
    const id = await assign(bus, assignment({ type: "echo", payload: 1 }, short));
    expect(
      await caller.request(
        "beamline.router.v1.cancel",
        { assignment_id: id, tenant_id: "acme", reason: "changed my mind" },
        { timeoutMs: 5_000 },
      ),
    ).toEqual({ ok: true, assignment_id: id, status: "cancelling" });
    expect((await resultFor(bus, id)).body).toMatchObject({ status: "cancelled", error_code: "CANCELLED_BY_USER" });
    await expect(
      caller.request("beamline.router.v1.cancel", { assignment_id: id }, { timeoutMs: 5_000 }),
    ).rejects.toMatchObject({ field: "tenant_id" });
  });
});

describe("results of other programs", () => {
  test("the Rust worker's envelope, the C++ worker's texts and protobuf are metered like ours", async () => {
    const bus = await world.connect("publisher");
    const look = world.bus;
    const ids = ["rust", "caf", "proto"].map((name) => `${name}-${Date.now()}`);
    const [rust = "", caf = "", proto = ""] = ids;
    bus.send(
      "caf.exec.result.v1",
      JSON.stringify({
        version: "v1",
        kind: "exec_result",
        data: {
          version: "1.0",
          assignment_id: rust,
          request_id: "r",
          status: "success",
          provider_id: "w1",
          job_type: "http",
          output: { a: 1 },
          latency_ms: 12,
          cost: 0.0,
          tenant_id: "acme",
        },
      }),
    );
    bus.send(
      "caf.exec.result.v1",
      JSON.stringify({
        version: "1",
        assignment_id: caf,
        request_id: "r",
        status: "canceled",
        provider_id: "w2",
        job: '{"type":"http.request"}',
        latency_ms: "150",
        cost: "0.25",
        tenant_id: "acme",
      }),
    );
    bus.send(
      "caf.exec.result.v1",
      ExecResult.encode(
        ExecResult.fromPartial({
          assignment_id: proto,
          status: "error",
          error_code: "NETWORK_ERROR",
          provider_id: "w3",
          job: { type: "chat" },
          latency_ms: 7n,
          cost: 0.5,
          tenant_id: "acme",
        }),
      ).finish(),
    );
    expect((await usageFor(look, rust)).body).toMatchObject({
      provider_id: "w1",
      event_type: "http",
      latency_ms: 12,
      status: "success",
    });
    expect((await usageFor(look, caf)).body).toMatchObject({
      provider_id: "w2",
      event_type: "http.request",
      latency_ms: 150,
      cost: 0.25,
      status: "cancelled",
    });
    expect((await usageFor(look, proto)).body).toMatchObject({
      provider_id: "w3",
      event_type: "chat",
      latency_ms: 7,
      cost: 0.5,
      status: "error",
    });
  });

  test("what breaks the contract stands on its dead letters with the field's name, and an alert tells of their growth", async () => {
    const { bus } = world;
    const before = await count(bus, "USAGE", "beamline.usage.v1.metered");
    const bad = [
      [{ status: "success", provider_id: "p", job: { type: "x" }, tenant_id: "acme" }, "assignment_id"],
      [{ assignment_id: "b1", provider_id: "p", job: { type: "x" }, tenant_id: "acme" }, "status"],
      [{ assignment_id: "b2", status: "fine", provider_id: "p", job: { type: "x" }, tenant_id: "acme" }, "status"],
      [{ assignment_id: "b3", status: "success", job: { type: "x" }, tenant_id: "acme" }, "provider_id"],
      [{ assignment_id: "b4", status: "success", provider_id: "p", tenant_id: "acme" }, "job.type"],
      [
        {
          assignment_id: "b5",
          status: "success",
          provider_id: "p",
          job: { type: "x" },
          latency_ms: -1,
          tenant_id: "acme",
        },
        "latency_ms",
      ],
      [
        {
          assignment_id: "b6",
          status: "success",
          provider_id: "p",
          job: { type: "x" },
          cost: "much",
          tenant_id: "acme",
        },
        "cost",
      ],
      [{ assignment_id: "b7", status: "success", provider_id: "p", job: { type: "x" } }, "tenant_id"],
    ] as const;
    for (const [body] of bad) await publish(bus, "caf.exec.result.v1", JSON.stringify(body));
    await publish(bus, "caf.exec.result.v1", "{not json");
    const letters = await until(async () => {
      const found = await all(bus, "DLQ", "caf.exec.result.v1.dlq");
      return found.length >= bad.length + 1 && found;
    }, "dead letters");
    const fields = letters.map(({ body }) => (body["context"] as { error: { field?: string } }).error.field);
    expect(fields.sort(byText)).toEqual([...bad.map(([, field]) => field), "body"].sort(byText));
    expect(letters.every(({ headers }) => headers["x-dlq-reason"] === "validation_failed")).toBe(true);
    expect(await count(bus, "USAGE", "beamline.usage.v1.metered")).toBe(before);
    await until(
      async () =>
        [
          ...(await all(bus, "ALERTS", "beamline.alert.v1.warning")),
          ...(await all(bus, "ALERTS", "beamline.alert.v1.critical")),
        ].some(({ body }) => String(body["message"]).includes("dead letters")),
      "an alert",
    );
  });

  test("health of a provider is in the bucket, and five failures in a row are an alert", async () => {
    const { bus } = world;
    const send = (n: number, more: object) =>
      publish(
        bus,
        "caf.exec.result.v1",
        JSON.stringify({
          assignment_id: `h-${n}`,
          provider_id: "shaky:v1",
          job: { type: "chat" },
          tenant_id: "acme",
          latency_ms: 100,
          ...more,
        }),
      );
    await send(0, { status: "success", cost: 0.5 });
    await send(1, { status: "cancelled" });
    await send(2, { status: "error", error_code: "INVALID_INPUT" });
    for (const n of [3, 4, 5, 6]) await send(n, { status: "error", error_code: "NETWORK_ERROR", latency_ms: 200 });
    await send(7, { status: "timeout", latency_ms: 200 });
    const health = await until(async () => {
      const message = await bus.jsm.direct.getMessage("KV_provider_health", {
        last_by_subj: "$KV.provider_health.acme.shaky=3Av1",
      });
      const record = message?.json<{ successes: number; failures: number }>();
      return record !== undefined && record.successes + record.failures === 6 && record;
    }, "the provider's health");
    expect(health).toMatchObject({ tenant_id: "acme", provider_id: "shaky:v1", successes: 1, failures: 5, cost: 0.5 });
    await until(
      async () =>
        (await all(bus, "ALERTS", "beamline.alert.v1.warning")).some(
          ({ body }) => (body["metadata"] as { provider_id?: string }).provider_id === "shaky:v1",
        ),
      "an alert",
    );
  });
});

describe("with workers", () => {
  verifies(
    "effect-once",
    "an effect begun by a killed worker is reported as unknown, and not repeated",
    async () => {
      const { bus } = world;
      const doomed = await world.startWorker("execution");
      const id = await assign(
        bus,
        assignment(
          { type: "http.request", payload: { url: url("/hang"), method: "POST", body: "{}" } },
          { options: { deadline_ms: 2_000, retry: { max_attempts: 3 } } },
        ),
      );
      await until(() => posts === 1, "the request");
      await doomed.kill();
      const other = await world.startWorker("execution");
      const result = await resultFor(bus, id, 30_000);
      expect(result.body).toMatchObject({
        status: "error",
        error_code: "UNKNOWN_ERROR",
        metadata: { outcome: "unknown" },
      });
      expect(posts).toBe(1);
      expect((await about(bus, "DLQ", "caf.exec.dlq.v1", id))[0]?.headers).toMatchObject({
        "x-dlq-reason": "outcome_unknown",
      });
      await usageFor(bus, id);
      await other.stop();
    },
    { timeout: 60_000 },
  );

  test("running and waiting jobs are cancelled; http jobs answer as their types say", async () => {
    const { bus, caller } = world;
    const worker = await world.startWorker("execution");
    const id = await assign(
      bus,
      assignment({ type: "sleep", payload: { ms: 30_000 } }, { options: { deadline_ms: 40_000 } }),
    );
    await until(
      async () => (await about(bus, "EXEC_ACKS", "caf.exec.assign.v1.ack", id)).length === 1,
      "an acknowledgement",
    );
    await caller.request("beamline.router.v1.cancel", { assignment_id: id, tenant_id: "acme" }, { timeoutMs: 5_000 });
    expect((await resultFor(bus, id)).body).toMatchObject({ status: "cancelled", error_code: "CANCELLED_BY_USER" });
    const get = await assign(bus, assignment({ type: "http", payload: { url: url("/down") } }));
    expect((await resultFor(bus, get)).body).toMatchObject({
      status: "success",
      payload: { status: 503, body: { seen: "GET" } },
      metadata: { retries_used: "1" },
    });
    const request = await assign(
      bus,
      assignment({ type: "http.request", payload: { url: url("/down"), method: "GET" } }),
    );
    expect((await resultFor(bus, request)).body).toMatchObject({ status: "error", error_code: "HTTP_ERROR" });
    const inside = await assign(bus, assignment({ type: "http", payload: { url: "http://169.254.169.254/latest" } }));
    expect((await resultFor(bus, inside)).body).toMatchObject({ status: "error", error_code: "PERMISSION_DENIED" });
    const late = await assign(bus, assignment({ type: "sleep", payload: { ms: 5_000 } }, short));
    expect((await resultFor(bus, late)).body).toMatchObject({
      status: "timeout",
      error_code: "CANCELLED_BY_TIMEOUT",
      latency_ms: expect.any(Number) as number,
    });
    const put = await assign(bus, assignment({ type: "fs.blob_put", payload: { path: "a/b.txt", content: "hello" } }));
    expect((await resultFor(bus, put)).body).toMatchObject({
      status: "success",
      payload: { path: "a/b.txt", size: 5 },
    });
    const read = await assign(bus, assignment({ type: "fs_blob_get", payload: { path: "a/b.txt" } }));
    expect((await resultFor(bus, read)).body).toMatchObject({
      payload: { bytes: Buffer.from("hello").toString("base64"), size: 5 },
    });
    const other = await assign(
      bus,
      assignment({ type: "fs_blob_get", payload: { path: "a/b.txt" } }, { tenant_id: "other" }),
    );
    expect((await resultFor(bus, other)).body).toMatchObject({ status: "error", error_code: "INVALID_INPUT" });
    const out = await assign(
      bus,
      assignment({ type: "fs_blob_get", payload: { path: "../acme/a/b.txt" } }, { tenant_id: "other" }),
    );
    expect((await resultFor(bus, out)).body).toMatchObject({ status: "error", error_code: "INVALID_INPUT" });
    await worker.stop();
  });
});
