/**
 * A worker that dies between its deed and the answer: the same call under the same key is answered as the first would have been, and what was
 * done is not done again (OpenWOP, idempotency layer 1).
 */
import { spawn, type ChildProcess } from "node:child_process";
import { createHash, randomUUID } from "node:crypto";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { buckets } from "../../contracts/streams.ts";
import type { IdempotencyRecord } from "../../workers/runs/idempotency.ts";
import { Records } from "../../workers/runs/records.ts";
import { until } from "../kit/until.ts";
import { openGap, type Gap } from "../routing/gap.ts";
import { bearer, startHost, type Got, type Host } from "./host.ts";
import { apply, event, node, retired, TOKEN_SECRETS, tokenFor, waiting } from "./provoke.ts";

const REPLAY = "openwop-idempotent-replay";
const accept = { resumeValue: { action: "accept" } };
const digest = (text: string): string => createHash("sha256").update(text).digest("base64url");

let host: Host;
const post = (path: string, body: unknown, key?: string): Promise<Got> =>
  host.rest("POST", path, body, key === undefined ? {} : { "idempotency-key": key });
const keyed = (key: string): { metadata: Record<string, string> } => ({
  metadata: { ...bearer().metadata, "idempotency-key": key },
});
const count = async (runId: string, type: string): Promise<number> =>
  (await host.events(runId)).filter((event) => event.type === type).length;

describe("kill -9 before anybody is told", () => {
  beforeAll(async () => {
    host = await startHost({}, 0);
  }, 60_000);
  afterAll(async () => host[Symbol.asyncDispose]());

  /** The only worker there is, behind a way to the bus that can be shut. */
  async function doomed(gap: Gap): Promise<ChildProcess> {
    const { user, password, inboxPrefix } = host.bed.nats.credentials.worker;
    const env = { PATH: process.env["PATH"], NATS_URL: gap.url, NATS_USER: user, NATS_PASSWORD: password };
    const more = { NATS_INBOX_PREFIX: inboxPrefix, REDIS_URL: host.bed.redisUrl, OPENWOP_LEASE_MS: "1000" };
    const file = fileURLToPath(new URL("worker.process.ts", import.meta.url));
    const stdio = ["ignore", "ignore", "ignore", "ipc"] as const;
    const child = spawn(process.execPath, [file], {
      env: { ...env, ...more, OPENWOP_FIXTURES: "true" },
      stdio: [...stdio],
    });
    await new Promise<void>((resolve, reject) => {
      child.once("message", () => resolve());
      child.once("exit", (code) => reject(new Error(`the worker ended with ${code}`)));
    });
    return child;
  }

  test("pause, resume, resolve: the retry is answered, and the log has it once", { timeout: 120_000 }, async () => {
    const calls: { path: string; body: object; key: string; runId: string; type: string }[] = [];
    /** A run made by a worker that then dies of this call: after its append, before its entry in the audit log. */
    const dieOf = async (
      type: string,
      prepare: () => Promise<string>,
      pathOf: (runId: string) => string,
      body: object,
    ): Promise<void> => {
      await using gap = await openGap(host.bed.nats.server.url);
      const child = await doomed(gap);
      const runId = await prepare();
      const path = pathOf(runId);
      const key = randomUUID();
      const struck = gap.before("log.run_audit");
      const hung = new AbortController();
      const headers = { ...bearer().metadata, "idempotency-key": key, "content-type": "application/json" };
      const asked = { method: "POST", headers, body: JSON.stringify(body), signal: hung.signal };
      const answer = fetch(`${host.base}${path}`, asked).then(
        ({ status }) => status,
        () => "none",
      );
      await struck;
      const gone = new Promise((resolve) => child.once("exit", resolve));
      child.kill("SIGKILL");
      await gone;
      hung.abort();
      expect(await answer).toBe("none");
      expect(await count(runId, type)).toBe(1);
      calls.push({ path, body, key, runId, type });
    };
    const made = async (workflowId: string, status: string): Promise<string> => {
      const runId = await waiting(host, workflowId, status);
      // Its creation is noted, so that what comes next in the audit log is the deed.
      await host.rest("GET", "/v1/audit/verify?fromSeq=0&toSeq=0");
      return runId;
    };
    const slow = (): Promise<string> => made("conformance-cancellable", "running");
    await dieOf("run.paused", slow, (id) => `/v1/runs/${id}:pause`, { drainPolicy: "immediate" });
    const paused = async (): Promise<string> => {
      const runId = await slow();
      await post(`/v1/runs/${runId}:pause`, { drainPolicy: "immediate" });
      return runId;
    };
    await dieOf("run.resumed", paused, (id) => `/v1/runs/${id}:resume`, {});
    const gate = (): Promise<string> => made("conformance-approval", "waiting-approval");
    await dieOf("interrupt.resolved", gate, (id) => `/v1/runs/${id}/interrupts/gate`, accept);
    await host.bed.startWorker();
    for (const { path, body, key, runId, type } of calls) {
      const retry = await until(async () => {
        const got = await post(path, body, key);
        if (got.body.error === "idempotency_in_flight" || got.status >= 500) throw new Error(JSON.stringify(got.body));
        return got;
      }, path);
      expect([path, retry.status, retry.body.error]).toEqual([path, path.includes(":") ? 202 : 200, undefined]);
      const again = await post(path, body, key);
      expect([again.status, again.body, again.headers.get(REPLAY)]).toEqual([retry.status, retry.body, "true"]);
      expect([path, await count(runId, type)]).toEqual([path, 1]);
      const unkeyed = await post(path, body);
      expect([path, unkeyed.status]).toEqual([path, 409]);
    }
    const events = await host.events(calls[0]?.runId ?? "");
    const pausedAt = events.find(({ type }) => type === "run.paused")?.timestamp;
    const { path = "", body = {}, key = "" } = calls[0] ?? {};
    expect((await post(path, body, key)).body).toMatchObject({ status: "paused", pausedAt });
  });
});

describe("the record of a call as its holder left it", () => {
  beforeAll(async () => {
    host = await startHost({ OPENWOP_INSECURE_WEBHOOKS: "true", OPENWOP_TOKEN_SECRETS: TOKEN_SECRETS }, 2);
    const voted = { title: "two of them", actions: ["accept", "reject"], requiredApprovals: 2 };
    await apply(host, "two-votes", [node("gate", "core.approvalGate", voted)]);
  }, 60_000);
  afterAll(async () => host[Symbol.asyncDispose]());

  /** As if the holder had died with its deed done and nothing written down of it. */
  async function forget(operation: string, key: string): Promise<void> {
    const records = new Records<IdempotencyRecord>(host.bed.bus, buckets.runIdempotency);
    const name = ["acme", operation, digest(key)];
    const kept = await records.get(...name);
    if (kept === undefined) throw new Error(`nothing is kept of ${operation}`);
    const { requestDigest, executionId } = kept.value;
    const left = { requestDigest, executionId, state: "pending", leaseOwner: "dead", leaseUntil: Date.now() - 1 };
    await records.put(name, left as IdempotencyRecord);
  }

  const slow = (): Promise<string> => waiting(host, "conformance-cancellable", "running");
  const gate = (): Promise<string> => waiting(host, "conformance-approval", "waiting-approval");
  const paused = async (): Promise<string> => {
    const runId = await slow();
    await post(`/v1/runs/${runId}:pause`, { drainPolicy: "immediate" });
    return runId;
  };
  const draining = async (): Promise<string> => {
    const runId = await slow();
    await post(`/v1/runs/${runId}:pause`, {});
    return runId;
  };
  const token = async (): Promise<string> =>
    `/v1/interrupts/${(await host.rest("GET", `/v1/runs/${await gate()}`)).body.interrupt.interruptToken}`;

  test.each<[what: string, operation: string, path: () => Promise<string>, body: unknown]>([
    ["pause at once", "runs.pause", async () => `/v1/runs/${await slow()}:pause`, { drainPolicy: "immediate" }],
    ["pause after the node", "runs.pause", async () => `/v1/runs/${await slow()}:pause`, { reason: "later" }],
    ["resume", "runs.resume", async () => `/v1/runs/${await paused()}:resume`, {}],
    ["resume what was to pause", "runs.resume", async () => `/v1/runs/${await draining()}:resume`, {}],
    ["cancel", "runs.cancel", async () => `/v1/runs/${await slow()}/cancel`, { reason: "enough" }],
    ["answer", "interrupts.resolve", async () => `/v1/runs/${await gate()}/interrupts/gate`, accept],
    ["answer by token", "interrupts.resolve", token, accept],
  ])("%s: the same answer", async (_what, operation, pathOf, body) => {
    const [path, key] = [await pathOf(), randomUUID()];
    const first = await post(path, body, key);
    expect(first.status).toBeLessThan(300);
    await forget(operation, key);
    const again = await post(path, body, key);
    // How far the run has got meanwhile is another matter.
    const answered = operation === "interrupts.resolve" ? { ...first.body, status: expect.any(String) } : first.body;
    expect([again.status, again.body, again.headers.get(REPLAY)]).toEqual([first.status, answered, "false"]);
  });

  test("over gRPC too: what REST began is answered there", async () => {
    const [runId, held, asked] = [await slow(), await paused(), await gate()];
    const key = randomUUID();
    const first = await post(`/v1/runs/${runId}:pause`, { drainPolicy: "immediate" }, key);
    await forget("runs.pause", key);
    const pause = await host.grpc.call("pauseRun", { run_id: runId, drain_policy: "immediate" }, keyed(key));
    expect([pause.status, pause.paused_at?.toISOString()]).toEqual(["paused", first.body.pausedAt]);
    await post(`/v1/runs/${held}:resume`, {}, key);
    await forget("runs.resume", key);
    expect((await host.grpc.call("resumeRun", { run_id: held }, keyed(key))).status).toBe("running");
    await post(`/v1/runs/${asked}/interrupts/gate`, accept, key);
    await forget("interrupts.resolve", key);
    const request = { run_id: asked, node_id: "gate", resume_value: accept.resumeValue };
    expect((await host.grpc.call("resolveInterruptByRun", request, keyed(key))).node_id).toBe("gate");
  });

  test("what others did since stays: a run that was resumed is not paused a second time", async () => {
    const [runId, key] = [await slow(), randomUUID()];
    const asked = { drainPolicy: "immediate" };
    const first = await post(`/v1/runs/${runId}:pause`, asked, key);
    await forget("runs.pause", key);
    await post(`/v1/runs/${runId}:resume`, {});
    const again = await post(`/v1/runs/${runId}:pause`, asked, key);
    expect([again.status, again.body]).toEqual([202, first.body]);
    expect((await host.rest("GET", `/v1/runs/${runId}`)).body.status).toBe("running");
    expect(await count(runId, "run.paused")).toBe(1);
  });

  test("a vote that decided nothing is not cast again", async () => {
    const [runId, key] = [await waiting(host, "two-votes", "waiting-approval"), randomUUID()];
    const path = `/v1/runs/${runId}/interrupts/gate`;
    const vote = { resumeValue: { action: "accept", voter: "ann" } };
    const first = await post(path, vote, key);
    await forget("interrupts.resolve", key);
    const again = await post(path, vote, key);
    expect([again.status, again.body]).toEqual([200, first.body]);
    expect(await count(runId, "approval.received")).toBe(1);
  });

  test("an answer by a token that has expired since", async () => {
    const key = randomUUID();
    const path = `/v1/interrupts/${await tokenFor(host, retired, Date.now() + 2_000)}`;
    const first = await post(path, { resumeValue: event }, key);
    expect(first.status).toBe(200);
    await until(async () => (await host.rest("GET", path)).status === 410, "the end of the token");
    const kept = await post(path, { resumeValue: event }, key);
    expect([kept.status, kept.body, kept.headers.get(REPLAY)]).toEqual([200, first.body, "true"]);
    await forget("interrupts.resolve", key);
    const again = await post(path, { resumeValue: event }, key);
    expect([again.status, again.body.nodeId]).toEqual([200, first.body.nodeId]);
    expect((await post(path, { resumeValue: event }, randomUUID())).body.error).toBe("interrupt_expired");
  });

  test("a webhook that was removed is removed", async () => {
    const hook = { url: "http://127.0.0.1:9/taken", events: ["run.completed"] };
    const { webhookId } = (await post("/v1/webhooks", hook)).body;
    const key = randomUUID();
    const remove = (): Promise<Got> =>
      host.rest("DELETE", `/v1/webhooks/${webhookId}`, undefined, { "idempotency-key": key });
    expect((await remove()).status).toBe(204);
    await forget("webhooks.unregister", key);
    expect((await remove()).status).toBe(204);
    expect((await host.rest("DELETE", `/v1/webhooks/${webhookId}`)).status).toBe(404);
  });

  test("a run that was made is made, although its workflow takes no such inputs any more", async () => {
    await apply(host, "changing", [node("a", "core.noop")]);
    const [body, key] = [{ workflowId: "changing", inputs: {} }, randomUUID()];
    const first = await post("/v1/runs", body, key);
    await forget("runs.create", key);
    const variables = [{ name: "must", type: "string", required: true }];
    await apply(host, "changing", [node("a", "core.noop")], { variables });
    const again = await post("/v1/runs", body, key);
    expect([again.status, again.body]).toEqual([201, first.body]);
  });
});
