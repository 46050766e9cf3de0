/** Streaming and the rest of the REST surface: modes, mixes, buffers, reconnects, poll, discovery, errors (OpenWOP, streaming). */
import { createServer } from "node:http";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { RunEvent } from "../../contracts/openwop/log.ts";
import { signatureOf } from "../../workers/runs/webhooks/webhook.delivery.ts";
import { until } from "../kit/until.ts";
import { bearer, KEYS, startHost, type Host } from "./host.ts";

let host: Host;
beforeAll(async () => {
  host = await startHost({ OPENWOP_INSECURE_WEBHOOKS: "true" });
}, 60_000);
afterAll(async () => host[Symbol.asyncDispose]());

interface Frame {
  readonly id: number;
  readonly event: string;
  readonly data: unknown;
  readonly at: number;
}

/** Reads a stream to its end. */
async function sse(
  path: string,
  headers: Record<string, string> = {},
): Promise<{ status: number; frames: Frame[]; body: string }> {
  const response = await fetch(`${host.base}${path}`, {
    headers: { authorization: `Bearer ${KEYS.full}`, ...headers },
  });
  const frames: Frame[] = [];
  let rest = "";
  if (response.headers.get("content-type")?.startsWith("text/event-stream") !== true)
    return { status: response.status, frames, body: await response.text() };
  for await (const chunk of response.body ?? []) {
    rest += Buffer.from(chunk).toString("utf8");
    for (let end = rest.indexOf("\n\n"); end >= 0; end = rest.indexOf("\n\n")) {
      const fields = Object.fromEntries(
        rest
          .slice(0, end)
          .split("\n")
          .map((line) => [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 2)]),
      );
      rest = rest.slice(end + 2);
      if (fields["data"] !== undefined)
        frames.push({
          id: Number(fields["id"]),
          event: fields["event"] ?? "",
          data: JSON.parse(fields["data"]),
          at: performance.now(),
        });
    }
  }
  return { status: response.status, frames, body: "" };
}

const delayed = (delayMs: number): Promise<string> => host.start("conformance-delay", { inputs: { delayMs } });

test("stream-modes: updates end with the run and show no node.started", async () => {
  const { status, frames } = await sse(`/v1/runs/${await delayed(200)}/events`);
  expect(status).toBe(200);
  const types = frames.map(({ event }) => event);
  expect(types[0]).toBe("run.started");
  expect(types.at(-1)).toBe("run.completed");
  expect(types).not.toContain("node.started");
});

test("stream-modes: debug shows all, values the state, an unknown one is refused", async () => {
  const runId = await delayed(50);
  await host.reaches(runId, "completed");
  const debug = await sse(`/v1/runs/${runId}/events?streamMode=debug`);
  expect(debug.frames.map(({ id }) => id)).toEqual((await host.events(runId)).map(({ sequence }) => sequence));
  const values = await sse(`/v1/runs/${runId}/events?streamMode=values`);
  expect(values.frames.every(({ event }) => event === "state.snapshot")).toBe(true);
  expect(values.frames.at(-1)?.data).toMatchObject({ payload: { runId, status: "completed" } });
  for (const modes of ["bogus", "updates,bogus", "values,updates"]) {
    const refused = await host.rest("GET", `/v1/runs/${runId}/events?streamMode=${modes}`);
    expect([refused.status, refused.body.error, refused.body.details.supported]).toEqual([
      400,
      "unsupported_stream_mode",
      ["updates", "values", "messages", "debug"],
    ]);
  }
});

test("messages: chunks as ai.message.chunk, and mixed with updates", async () => {
  const mockProvider = { id: "stream-text", config: { tokens: ["one", "two"], delayMsPerToken: 30 } };
  const runId = await host.start("conformance-stream-text", { configurable: { mockProvider } });
  const { frames } = await sse(`/v1/runs/${runId}/events?streamMode=messages`);
  expect(frames.map(({ event }) => event)).toEqual(["ai.message.chunk", "ai.message.chunk"]);
  const mixed = await sse(`/v1/runs/${runId}/events?streamMode=updates,messages`);
  expect(mixed.frames.map(({ event }) => event)).toEqual([
    "run.started",
    "ai.message.chunk",
    "ai.message.chunk",
    "node.completed",
    "run.completed",
  ]);
});

test("stream-modes-buffer: batches, an early flush at the end, nothing lost; impossible values are refused", async () => {
  const started = performance.now();
  const { frames } = await sse(`/v1/runs/${await delayed(300)}/events?bufferMs=4000`);
  expect(frames.every(({ event }) => event === "batch")).toBe(true);
  expect(frames.flatMap(({ data }) => (data as RunEvent[]).map(({ type }) => type)).at(-1)).toBe("run.completed");
  expect(performance.now() - started).toBeLessThan(3_900);
  for (const bufferMs of ["99999", "-1", "soon"])
    expect((await host.rest("GET", `/v1/runs/x/events?bufferMs=${bufferMs}`)).body.error).toBe("validation_error");
});

test("streamReconnect: strictly after the last id, also at the end", async () => {
  const runId = await host.start("conformance-multi-node");
  await host.reaches(runId, "completed");
  const all = await sse(`/v1/runs/${runId}/events`);
  const [, second] = all.frames;
  const later = await sse(`/v1/runs/${runId}/events`, { "last-event-id": String(second?.id) });
  expect(later.frames.map(({ id }) => id)).toEqual(all.frames.slice(2).map(({ id }) => id));
  expect((await sse(`/v1/runs/${runId}/events`, { "last-event-id": String(all.frames.at(-1)?.id) })).frames).toEqual(
    [],
  );
});

test("a client that leaves takes nothing with it", async () => {
  const runId = await delayed(300);
  const gone = new AbortController();
  const response = await fetch(`${host.base}/v1/runs/${runId}/events`, {
    headers: { authorization: `Bearer ${KEYS.full}` },
    signal: gone.signal,
  });
  expect(response.status).toBe(200);
  gone.abort();
  await host.reaches(runId, "completed");
});

test("the same run over both surfaces, event by event, while it happens", async () => {
  const { run_id } = await host.grpc.call(
    "createRun",
    { workflow_id: "conformance-delay", inputs: { delayMs: 200 } },
    bearer(),
  );
  const overGrpc = (async () => {
    const events = [];
    for await (const { seq, type, event_id } of host.grpc.stream(
      "streamRunEvents",
      { run_id, last_sequence: -1n },
      bearer(),
    ))
      events.push([Number(seq), type, event_id]);
    return events;
  })();
  const overSse = await sse(`/v1/runs/${run_id}/events`);
  expect(await overGrpc).toEqual(overSse.frames.map(({ id, event, data }) => [id, event, (data as RunEvent).eventId]));
  const after = [];
  for await (const { seq } of host.grpc.stream("streamRunEvents", { run_id }, bearer())) after.push(Number(seq));
  expect(after).not.toContain(0);
});

test("poll: past the end, repeated, malformed, unknown", async () => {
  const runId = await host.start("conformance-noop");
  await host.reaches(runId, "completed");
  const [one, two] = [
    await host.rest("GET", `/v1/runs/${runId}/events/poll`),
    await host.rest("GET", `/v1/runs/${runId}/events/poll?lastSequence=-1`),
  ];
  expect(one.body).toEqual(two.body);
  expect(one.body.isComplete).toBe(true);
  for (const event of one.body.events)
    expect(Object.keys(event)).toEqual(
      expect.arrayContaining(["eventId", "runId", "type", "payload", "timestamp", "sequence"]),
    );
  expect((await host.rest("GET", `/v1/runs/${runId}/events/poll?lastSequence=0`)).body.events[0].sequence).toBe(1);
  expect((await host.rest("GET", `/v1/runs/${runId}/events/poll?lastSequence=999`)).body).toEqual({
    events: [],
    isComplete: true,
  });
  expect((await host.rest("GET", `/v1/runs/${runId}/events/poll?lastSequence=soon`)).body.error).toBe(
    "validation_error",
  );
  expect((await host.rest("GET", "/v1/runs/no-such/events/poll")).body.error).toBe("run_not_found");
  const waiting = await delayed(150);
  await until(async () => (await host.events(waiting)).length >= 2);
  const last = (await host.events(waiting)).at(-1)?.sequence ?? 0;
  expect(
    (await host.rest("GET", `/v1/runs/${waiting}/events/poll?lastSequence=${last}&timeout=10`)).body.events.length,
  ).toBeGreaterThan(0);
});

test("discovery: cacheable, with a validator; openapi 3.1", async () => {
  const first = await host.rest("GET", "/.well-known/openwop", undefined, {}, "");
  expect(first.headers.get("cache-control")).toBe("public, max-age=300");
  const again = await fetch(`${host.base}/.well-known/openwop`, {
    headers: { "if-none-match": first.headers.get("etag") ?? "" },
  });
  expect(again.status).toBe(304);
  expect((await host.rest("GET", "/v1/openapi.json", undefined, {}, "")).body.openapi).toMatch(/^3\.[1-9]/);
  const { capabilities } = await host.grpc.call("getCapabilities", {}, { metadata: {} });
  expect(capabilities).toEqual(first.body);
});

test("errors: an envelope and nothing else", async () => {
  const cases = [
    await host.rest("GET", "/v1/runs/no-such"),
    await host.rest("POST", "/v1/runs", ""),
    await host.rest("POST", "/v1/runs", "{broken"),
    await host.rest("POST", "/v1/runs", { workflowId: "conformance-noop", bogus: 1 }),
    await host.rest("GET", "/v1/nothing/here"),
    await host.rest("POST", "/v1/runs", { workflowId: "conformance-noop", inputs: { big: "x".repeat(5_000_000) } }),
    await host.rest("GET", `/v1/runs/${"x".repeat(500)}`),
  ];
  for (const { status, body } of cases) {
    expect(status).toBeGreaterThanOrEqual(400);
    expect(Object.keys(body).filter((key) => !["error", "message", "details"].includes(key))).toEqual([]);
    expect([typeof body.error, typeof body.message]).toEqual(["string", "string"]);
  }
  expect(cases.map(({ status }) => status)).toEqual([404, 400, 400, 400, 404, 413, 404]);
});

test("idempotencyRetry: said in a header, shared by both surfaces", async () => {
  const key = { "idempotency-key": "retry-1" };
  const body = { workflowId: "conformance-idempotent", inputs: { nonce: "x" } };
  const first = await host.rest("POST", "/v1/runs", body, key);
  expect(first.headers.get("openwop-idempotent-replay")).toBe("false");
  for (let retry = 0; retry < 5; retry++) {
    const again = await host.rest("POST", "/v1/runs", body, key);
    expect([again.body.runId, again.headers.get("openwop-idempotent-replay")]).toEqual([first.body.runId, "true"]);
  }
  const overGrpc = await host.grpc.call(
    "createRun",
    { workflow_id: body.workflowId, inputs: body.inputs, idempotency_key: "retry-1" },
    bearer(),
  );
  expect(overGrpc.run_id).toBe(first.body.runId);
});

test("X-Dedup: one active run per scope; forced engine versions fold", async () => {
  const first = await host.rest(
    "POST",
    "/v1/runs",
    { workflowId: "conformance-approval", scopeId: "s1" },
    { "x-dedup": "enforce" },
  );
  expect(first.status).toBe(201);
  const second = await host.rest(
    "POST",
    "/v1/runs",
    { workflowId: "conformance-approval", scopeId: "s1" },
    { "x-dedup": "enforce" },
  );
  expect([second.status, second.body.error, second.body.details.activeRunId]).toEqual([
    409,
    "run_already_active",
    first.body.runId,
  ]);
  expect(second.headers.get("retry-after")).toMatch(/^\d+$/);
  const forced = await host.rest(
    "POST",
    "/v1/runs",
    { workflowId: "conformance-version-fold" },
    { "x-force-engine-version": "2" },
  );
  await host.reaches(forced.body.runId, "completed");
  expect((await host.events(forced.body.runId)).every(({ engineVersion }) => engineVersion === "2")).toBe(true);
  expect(
    (
      await host.rest(
        "POST",
        "/v1/runs",
        { workflowId: "conformance-version-fold" },
        { "x-force-engine-version": "99" },
      )
    ).body.error,
  ).toBe("unsupported_force_engine_version");
  expect(
    (
      await host.rest(
        "POST",
        "/v1/runs",
        { workflowId: "conformance-version-fold" },
        { "x-force-engine-version": "1" },
        KEYS.live,
      )
    ).body.error,
  ).toBe("force_engine_version_forbidden");
});

test("debug bundle, ancestry, diff", async () => {
  const runId = await host.start("conformance-subworkflow-parent");
  const { childRuns } = await host.reaches(runId, "completed");
  const bundle = await host.rest("GET", `/v1/runs/${runId}/debug-bundle`);
  expect(bundle.headers.get("cache-control")).toBe("no-store");
  expect(bundle.body.metrics.eventCount).toBe(bundle.body.events.length);
  expect((await host.rest("GET", `/v1/runs/${childRuns[0].runId}/ancestry`)).body).toMatchObject({
    parent: { runId, cause: "core.subWorkflow" },
  });
  const [a, b] = [await host.start("conformance-noop"), await host.start("conformance-failure")];
  await host.reaches(a, "completed");
  await host.reaches(b, "failed");
  expect((await host.rest("GET", `/v1/runs/${a}:diff?against=${a}`)).body).toMatchObject({
    divergedAtSeq: null,
    eventDiffs: [],
  });
  expect((await host.rest("GET", `/v1/runs/${a}:diff?against=${b}`)).body).toMatchObject({
    divergedAtSeq: 0,
    stateDiff: { status: { a: "completed", b: "failed" } },
  });
});

test("workflows: registered, versioned, refused with the path of what is wrong", async () => {
  const node = { id: "a", typeId: "core.noop", name: "a", position: { x: 0, y: 0 }, config: {}, inputs: {} };
  const workflow = {
    id: "mine",
    name: "mine",
    version: "1",
    nodes: [node],
    edges: [],
    triggers: [],
    variables: [],
    metadata: {},
    settings: {},
  };
  expect((await host.rest("PUT", "/v1/workflows/mine", workflow)).status).toBe(201);
  expect((await host.rest("PUT", "/v1/workflows/mine", workflow)).status).toBe(200);
  await host.reaches(await host.start("mine"), "completed");
  expect((await host.rest("GET", "/v1/workflows/mine", undefined, {}, KEYS.other)).status).toBe(404);
  const fieldOf = async (changed: object): Promise<string> =>
    (await host.rest("PUT", "/v1/workflows/mine", { ...workflow, ...changed })).body.details.field;
  expect(await fieldOf({ nodes: [{ ...node, position: { x: 0 } }] })).toBe("nodes[0].position");
  expect(await fieldOf({ edges: [{ id: "e", sourceNodeId: "a", targetNodeId: "b" }] })).toBe("edges[0].targetNodeId");
  expect(
    await fieldOf({
      nodes: [node, { ...node, id: "b" }],
      edges: [
        { id: "1", sourceNodeId: "a", targetNodeId: "b" },
        { id: "2", sourceNodeId: "b", targetNodeId: "a" },
      ],
    }),
  ).toBe("edges[1]");
  expect(
    await fieldOf({
      edges: [{ id: "e", sourceNodeId: "a", targetNodeId: "a", condition: { type: "expression", expression: "1 +" } }],
    }),
  ).toBe("edges[0].condition.expression");
  const gated = await host.rest("PUT", "/v1/workflows/mine", {
    ...workflow,
    nodes: [{ ...node, typeId: "core.conversationGate" }],
  });
  expect([gated.status, gated.body.error]).toEqual([422, "capability_required"]);
});

test("webhook-signed-delivery: signed, with both spellings, to the tenant's own hook alone", async () => {
  const received: { headers: Record<string, unknown>; body: string }[] = [];
  const server = createServer((request, response) => {
    let body = "";
    request.on("data", (chunk: Buffer) => (body += chunk.toString()));
    request.on("end", () => {
      received.push({ headers: request.headers, body });
      response.writeHead(received.length === 1 ? 503 : 200).end();
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as { port: number };
  const { body } = await host.rest("POST", "/v1/webhooks", {
    url: `http://127.0.0.1:${port}/hook`,
    events: ["run.completed"],
  });
  expect(body.secretFingerprint).toMatch(/^[0-9a-f]{8}$/);
  const runId = await host.start("conformance-noop");
  await host.rest("POST", "/v1/runs", { workflowId: "conformance-noop" }, {}, KEYS.other);
  await until(() => received.length >= 2, "a delivery and its second try");
  const [, second] = received;
  const told = JSON.parse(second?.body ?? "{}") as { runId: string; type: string; event: RunEvent };
  expect([told.runId, told.type, told.event.type]).toEqual([runId, "run.completed", "run.completed"]);
  const { headers = {} } = second ?? {};
  expect(headers["x-openwop-signature"]).toBe(
    `sha256=${signatureOf(body.secret, String(headers["x-openwop-timestamp"]), second?.body ?? "")}`,
  );
  expect(headers["openwop-signature"]).toBe(headers["x-openwop-signature"]);
  expect((await host.rest("DELETE", `/v1/webhooks/${body.webhookId}`)).status).toBe(204);
  expect(received.every((one) => !one.body.includes('"tenant":"other"'))).toBe(true);
  server.close();
});

test("production-backpressure: beyond the cap 503 with Retry-After, discovery answers all the same", async () => {
  const { base } = await host.listen({ inflightCap: 1 });
  const runId = await delayed(5_000);
  const headers = { authorization: `Bearer ${KEYS.full}` };
  const gone = new AbortController();
  const held = await fetch(`${base}/v1/runs/${runId}/events`, { headers, signal: gone.signal });
  expect(held.status).toBe(200);
  const refused = await fetch(`${base}/v1/runs/${runId}`, { headers });
  const body = (await refused.json()) as { error: string; details: { retryAfter: number } };
  expect([refused.status, body.error]).toEqual([503, "service_unavailable"]);
  expect(refused.headers.get("retry-after")).toBe(String(body.details.retryAfter));
  expect((await fetch(`${base}/v1/runs/${runId}`)).status).toBe(401);
  expect((await fetch(`${base}/.well-known/openwop`)).status).toBe(200);
  gone.abort();
  await until(async () => (await fetch(`${base}/v1/runs/${runId}`, { headers })).status === 200, "room again");
  await host.rest("POST", `/v1/runs/${runId}/cancel`);
});
