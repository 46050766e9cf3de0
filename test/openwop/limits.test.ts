/** Limits of an edge: rate, capacity, and what is not sent twice (OpenWOP, rate limits, backpressure, headers). */
import type { Metadata } from "@grpc/grpc-js";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { bearer, KEYS, startHost, type Host } from "./host.ts";
import { waiting } from "./provoke.ts";
import { grpcSurface, restSurface, type Reply, type Surface } from "./surface.ts";

let host: Host;
beforeAll(async () => {
  host = await startHost();
}, 60_000);
afterAll(async () => host[Symbol.asyncDispose]());

/** Seconds in the trailing metadata of a refused RPC. */
async function retryAfterOf(call: Promise<unknown>): Promise<unknown> {
  const { metadata } = await call.then(
    () => Promise.reject(new Error("the call was let in")),
    (thrown: { metadata: Metadata }) => thrown,
  );
  return metadata.get("retry-after")[0];
}

describe("limits of an edge", () => {
  test("429 with Retry-After, the same over both surfaces, before scopes, for this credential alone", async () => {
    const limited = await host.listen({ ratePerSecond: 3 });
    const [rest, rpc] = [restSurface(limited), grpcSurface(limited)];
    const exceed = async (on: Surface): Promise<Reply> => {
      for (;;) {
        const reply = await on.create({}, { key: KEYS.low });
        if (reply.body.error !== "forbidden") return reply;
      }
    };
    const [overRest, overGrpc] = [await exceed(rest), await exceed(rpc)];
    expect([overRest.status, overGrpc.status]).toEqual([429, 8]);
    expect(overRest.body).toMatchObject({ error: "rate_limited", details: { scope: "key", limit: 3 } });
    expect(overGrpc.body).toEqual(overRest.body);
    expect(overRest.body.details.retryAfterMs / 1_000).toBe(overRest.body.details.retryAfter);
    const again = await limited.rest("POST", "/v1/runs", {}, {}, KEYS.low);
    expect(again.headers.get("retry-after")).toMatch(/^[1-9]\d*$/);
    expect(Math.abs(again.body.details.retryAfterMs / 1_000 - Number(again.headers.get("retry-after")))).toBeLessThan(
      1.5,
    );
    expect(await retryAfterOf(limited.grpc.call("getRun", { run_id: "r" }, bearer(KEYS.low)))).toMatch(/^[1-9]\d*$/);
    expect((await rest.get("no-such-run")).status).toBe(404);
    expect((await rpc.capabilities()).ok).toBe(true);
  });

  test("503: streams and calls of both surfaces count together, discovery does not", async () => {
    const small = await host.listen({ inflightCap: 1 });
    const [rest, rpc] = [restSurface(small), grpcSurface(small)];
    const runId = await waiting(host, "conformance-approval", "waiting-approval");
    const leave = new AbortController();
    const asked = { run_id: runId, last_sequence: -1n, stream_modes: ["debug"] };
    const settings = { metadata: { authorization: `Bearer ${KEYS.full}` }, signal: leave.signal };
    const stream = small.grpc.stream("streamRunEvents", asked, settings)[Symbol.asyncIterator]();
    await stream.next();
    const [overRest, overGrpc] = [await rest.get(runId), await rpc.get(runId)];
    expect([overRest.status, overGrpc.status]).toEqual([503, 14]);
    expect(overRest.body).toMatchObject({ error: "service_unavailable", details: { retryAfter: 1 } });
    const { correlationId, ...details } = overRest.body.details;
    expect(correlationId).toMatch(/^[0-9a-f]{32}$/);
    expect(overGrpc.body).toEqual({ ...overRest.body, details });
    const refused = await small.rest("GET", `/v1/runs/${runId}`);
    expect(refused.headers.get("retry-after")).toBe("1");
    expect(await retryAfterOf(small.grpc.call("getRun", { run_id: runId }, bearer()))).toBe("1");
    expect([(await rest.capabilities()).ok, (await rpc.capabilities()).ok]).toEqual([true, true]);
    expect((await small.rest("GET", "/v1/openapi.json")).status).toBe(200);
    leave.abort();
    await stream.return?.();
    await expect.poll(async () => (await rpc.get(runId)).ok, { timeout: 15_000 }).toBe(true);
    expect((await rest.get(runId)).ok).toBe(true);
  });
});

test("503: an SSE stream takes a place, and gives it back when its client leaves", async () => {
  const small = await host.listen({ inflightCap: 1 });
  const [rest, rpc] = [restSurface(small), grpcSurface(small)];
  const runId = await waiting(host, "conformance-approval", "waiting-approval");
  const leave = new AbortController();
  const path = `${small.base}/v1/runs/${runId}/events?streamMode=debug`;
  const stream = await fetch(path, { headers: bearer().metadata, signal: leave.signal });
  expect(stream.status).toBe(200);
  expect([(await rest.get(runId)).status, (await rpc.get(runId)).status]).toEqual([503, 14]);
  leave.abort();
  await expect.poll(async () => (await rest.get(runId)).ok, { timeout: 15_000 }).toBe(true);
});

test("If-None-Match: a run that has not moved is not sent again", async () => {
  const runId = await waiting(host, "conformance-noop", "completed");
  const first = await host.rest("GET", `/v1/runs/${runId}`);
  const etag = first.headers.get("etag") ?? "";
  expect(etag).toMatch(/^".+"$/);
  for (const asked of [etag, `W/${etag}`, `"other", ${etag}`, "*"]) {
    const again = await host.rest("GET", `/v1/runs/${runId}`, undefined, { "if-none-match": asked });
    expect([asked, again.status, again.body]).toEqual([asked, 304, undefined]);
  }
  const other = await host.rest("GET", `/v1/runs/${runId}`, undefined, { "if-none-match": '"other"' });
  expect([other.status, other.body.runId]).toEqual([200, runId]);
});
