/** What surrounds runs: the audit log over both surfaces, artifacts, debug bundles (OpenWOP, audit log, artifacts, debug bundle). */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { readStream } from "../../bus/read.ts";
import { until } from "../kit/until.ts";
import { verifies } from "../kit/verifies.ts";
import { bearer, KEYS, startHost, type Host } from "./host.ts";
import { apply, bare, edge, node, waiting } from "./provoke.ts";
import { grpcSurface, restSurface, type Surface } from "./surface.ts";

let host: Host;
let surfaces: readonly Surface[];
beforeAll(async () => {
  host = await startHost({ OPENWOP_INSECURE_WEBHOOKS: "true" }, 2);
  surfaces = [restSurface(host), grpcSurface(host)];
}, 60_000);
afterAll(async () => host[Symbol.asyncDispose]());

describe("the audit log", () => {
  interface Entry {
    readonly action: string;
    readonly target: string;
    readonly tenant: string;
    readonly principal: string;
    readonly ts: string;
  }
  async function entries(): Promise<Entry[]> {
    const found: Entry[] = [];
    for await (const message of readStream(host.bed.bus, "RUN_AUDIT", {}))
      found.push(...(JSON.parse(message.string()) as { entries: Entry[] }).entries);
    return found;
  }

  verifies(
    "acked-is-durable",
    "who did what and when is there by the time it is answered, over either surface",
    async () => {
      for (const on of surfaces) {
        const gate = await waiting(host, "conformance-approval", "waiting-approval");
        const slow = await host.start("conformance-cancellable");
        const hook = await on.registerWebhook({ url: "http://127.0.0.1:9/hook", events: ["run.completed"] });
        await on.resolve(gate, "gate", { action: "accept" });
        await on.pause(slow, "immediate");
        await on.resume(slow);
        await on.cancel(slow);
        await on.unregisterWebhook(hook.body.webhookId);
        await apply(host, `audited-${on.name}`, [node("n", "core.noop")]);
        await host.reaches(gate, "completed");
        const fork = await on.fork(gate, "replay", 0);
        const log = await entries();
        const wanted = [
          ["webhook.registered", hook.body.webhookId],
          ["interrupt.resolved", gate],
          ["run.paused", slow],
          ["run.resumed", slow],
          ["run.cancelled", slow],
          ["webhook.unregistered", hook.body.webhookId],
          ["workflow.registered", `audited-${on.name}`],
          ["run.forked", fork.body.runId],
        ];
        for (const [action, target] of wanted) {
          const mine = log.filter((one) => one.action === action && one.target === target);
          expect([on.name, action, mine.length]).toEqual([on.name, action, 1]);
          expect(mine[0]).toMatchObject({
            tenant: "acme",
            principal: "tester",
            ts: expect.stringMatching(/^\d{4}-.*Z$/),
          });
        }
        await until(async () =>
          (await entries()).some(({ action, target }) => action === "run.created" && target === gate),
        );
      }
      const text = JSON.stringify(await entries());
      for (const key of Object.values(KEYS)) expect(text).not.toContain(key);
    },
  );

  test("verify: the same over both, for those with the scope, with ranges that make sense", async () => {
    const { length } = await entries();
    for (const [from, to] of [
      [0, 100],
      [0, 1_000_000],
      [2, 3],
      [length + 5, length + 9],
    ] as const) {
      const [rest, rpc] = await Promise.all(surfaces.map((on) => on.verifyAudit(from, to)));
      expect([rest?.status, rpc?.status]).toEqual([200, 0]);
      expect(rpc?.body).toEqual(rest?.body);
      expect(rest?.body).toMatchObject({
        fromSeq: from,
        toSeq: to,
        chainValid: true,
        checkpointsValid: true,
        anomalies: [],
      });
      for (const { atSequence } of rest?.body.checkpoints ?? [])
        expect(atSequence >= from && atSequence <= to).toBe(true);
    }
    for (const query of [
      "",
      "?fromSeq=0",
      "?fromSeq=a&toSeq=1",
      "?fromSeq=-1&toSeq=1",
      "?fromSeq=1.5&toSeq=2",
      "?fromSeq=5&toSeq=1",
    ]) {
      const { status, body } = await host.rest("GET", `/v1/audit/verify${query}`);
      expect([query, status, body.error]).toEqual([query, 400, "validation_error"]);
    }
    const low = await host.rest("GET", "/v1/audit/verify?fromSeq=0&toSeq=1", undefined, {}, KEYS.low);
    expect([low.status, low.body.details.scopeRequired]).toEqual([403, "audit:read"]);
    expect((await host.rest("GET", "/v1/audit/verify?fromSeq=0&toSeq=1", undefined, {}, "")).status).toBe(401);
  });
});

describe("artifacts", () => {
  const text = "# Report\n\nüñí 🙂\n";
  const made = async (): Promise<{ runId: string; ids: string[] }> => {
    const runId = await host.start("filing");
    await host.reaches(runId, "completed");
    const created = (await host.events(runId)).filter(({ type }) => type === "artifact.created");
    return { runId, ids: created.map(({ payload }) => (payload as { artifactId: string }).artifactId) };
  };
  beforeAll(() =>
    apply(host, "filing", [
      node("report", "core.artifact", {
        artifactId: "report",
        content: text,
        contentType: "text/markdown",
        artifactType: "report",
      }),
    ]),
  );

  test("what a node filed is announced, and read over both surfaces byte for byte", async () => {
    const { runId, ids } = await made();
    expect(ids).toEqual(["report"]);
    const { status, body } = await host.rest("GET", `/v1/runs/${runId}/artifacts/report`);
    expect(status).toBe(200);
    expect(body).toEqual({
      artifactId: "report",
      runId,
      contentType: "text/markdown",
      size: Buffer.byteLength(text),
      encoding: "utf-8",
      content: text,
    });
    const rpc = await host.grpc.call("getArtifact", { run_id: runId, artifact_id: "report" }, bearer());
    expect([rpc.artifact_id, rpc.content_type, Buffer.from(rpc.content).toString("utf8")]).toEqual([
      "report",
      "text/markdown",
      text,
    ]);
  });

  test("artifact-auth: 401 before anything is looked up, no redirect; then the scope, then the tenant", async () => {
    const { runId } = await made();
    for (const [run, id] of [
      [runId, "report"],
      ["no-such-run", "nothing"],
    ] as const) {
      for (const on of surfaces) {
        const nobody = await on.artifact(run, id, "");
        expect([on.name, nobody.body.error]).toEqual([on.name, "unauthenticated"]);
        const low = await on.artifact(run, id, KEYS.low);
        expect([low.body.error, low.body.details.scopeRequired]).toEqual(["forbidden", "artifacts:read"]);
        const other = await on.artifact(run, id, KEYS.other);
        expect(other.body.error).toBe("artifact_not_found");
      }
    }
    const [mine, unknown] = await Promise.all([
      host.rest("GET", `/v1/runs/${runId}/artifacts/report`, undefined, {}, KEYS.other),
      host.rest("GET", "/v1/runs/none/artifacts/report", undefined, {}, KEYS.other),
    ]);
    expect([bare(mine.body), mine.status]).toEqual([bare(unknown.body), unknown.status]);
  });
});

describe("debug bundles", () => {
  const bundleOf = (runId: string, key?: string) =>
    host.rest("GET", `/v1/runs/${runId}/debug-bundle`, undefined, {}, key);

  test("the run, its events and its numbers, kept by nobody on the way", async () => {
    const runId = await waiting(host, "conformance-multi-node", "completed");
    const { status, body, headers } = await bundleOf(runId);
    expect([status, headers.get("cache-control")]).toEqual([200, "no-store"]);
    expect(body).toMatchObject({ bundleVersion: "1", redactionApplied: true, redactionMode: "mask", spans: [] });
    expect(Object.keys(body.host).toSorted()).toEqual(["name", "vendor", "version"]);
    expect(body.run).toMatchObject({ runId, status: "completed", workflowId: "conformance-multi-node", error: null });
    expect(body.events).toEqual(await host.events(runId));
    expect(body.metrics).toMatchObject({ nodeCount: 3, eventCount: body.events.length });
    expect(body.truncated).toBeUndefined();
    expect(JSON.stringify(body)).not.toMatch(/127\.0\.0\.1|nats:|redis:/);
    expect((await bundleOf(runId, "")).status).toBe(401);
    const [other, unknown] = await Promise.all([bundleOf(runId, KEYS.other), bundleOf("no-such-run", KEYS.other)]);
    expect([other.status, unknown.status, other.body.error]).toEqual([404, 404, unknown.body.error]);
    expect((await bundleOf(runId, KEYS.low)).status).toBe(200);
  });

  test("secrets are masked in the way the workflow asks for, and passthrough does not call itself redacted", async () => {
    const secret = "hunter2hunter2";
    for (const [mode, shows] of [
      ["mask", "[REDACTED]"],
      ["hash", "sha256:"],
      ["omit", undefined],
      ["passthrough", secret],
    ] as const) {
      await apply(host, `kept-${mode}`, [node("n", "core.noop")], {
        variables: [{ name: "password", type: "string", required: true, sensitive: true }],
        metadata: { complianceConfig: { maskingMode: mode } },
      });
      const runId = await host.start(`kept-${mode}`, { inputs: { password: secret } });
      await host.reaches(runId, "completed");
      const { body } = await bundleOf(runId);
      expect([mode, body.redactionMode, body.redactionApplied]).toEqual([mode, mode, mode !== "passthrough"]);
      expect([mode, JSON.stringify(body).includes(secret)]).toEqual([mode, mode === "passthrough"]);
      const shown = body.run.variables.password;
      expect([mode, shows === undefined ? shown : String(shown).startsWith(shows)]).toEqual([
        mode,
        shows === undefined ? undefined : true,
      ]);
    }
  });

  test("debug-bundle-truncation: what is too large says so, and stays below eight megabytes", async () => {
    const nodes = ["a", "b", "c", "d"].flatMap((id) => [
      node(id, "core.identity"),
      node(`after-${id}`, "core.delay", { ms: 1 }),
    ]);
    const sized = nodes.map((one) => ({ ...one, inputs: { payload: { type: "variable", variableName: "payload" } } }));
    const ids = ["a", "after-a", "b", "after-b", "c", "after-c", "d", "after-d"];
    await apply(host, "large", sized, {
      edges: ids.slice(1).map((id, at) => edge(ids[at] ?? "", id)),
      variables: [{ name: "payload", type: "string", required: true }],
    });
    const runId = await host.start("large", { inputs: { payload: "x".repeat(1_500_000) } });
    await host.reaches(runId, "completed", "failed");
    const { body } = await bundleOf(runId);
    expect([body.truncated, body.truncatedReason]).toEqual([true, "events_truncated_to_size_cap"]);
    expect(Buffer.byteLength(JSON.stringify(body))).toBeLessThanOrEqual(8 * 1024 * 1024);
    expect(body.metrics.eventCount).toBe(body.events.length);
    expect(body.events.map(({ sequence }: { sequence: number }) => sequence)).toEqual(
      body.events.map((_: unknown, at: number) => at),
    );
  });
});

test("runs are listed newest first, of the caller's tenant alone; a limit or a status that is none is refused", async () => {
  const [older, newer] = [await host.start("conformance-approval"), await host.start("conformance-approval")];
  for (const runId of [older, newer]) await host.reaches(runId, "waiting-approval");
  const list = async (query: string, key: string = KEYS.full): Promise<string[]> =>
    (await host.rest("GET", `/v1/runs${query}`, undefined, {}, key)).body.runs.map(
      ({ runId }: { runId: string }) => runId,
    );
  expect((await list("")).slice(0, 2)).toEqual([newer, older]);
  expect(await list("?limit=1&status=waiting-approval")).toEqual([newer]);
  expect(await list("?status=cancelling")).toEqual([]);
  expect(await list("?limit=500", KEYS.other)).not.toContain(newer);
  for (const [query, field] of [
    ["?status=bogus", "status"],
    ["?limit=0", "limit"],
    ["?limit=501", "limit"],
    ["?limit=all", "limit"],
  ]) {
    const { status, body } = await host.rest("GET", `/v1/runs${query}`);
    expect([query, status, body.error, body.details.field]).toEqual([query, 400, "validation_error", field]);
  }
});
