/** An edge that closes while clients follow runs, clients that leave, a bus that is away: nobody is told that a run is over (design, thin edge). */
import { status, type ServiceError } from "@grpc/grpc-js";
import { afterAll, beforeAll, expect, test } from "vitest";
import { EngineDefinition } from "../../contracts/gen/openwop/v1/openwop.ts";
import { KeyRing, sha256 } from "../../edge/auth.ts";
import { openwopEdge } from "../../edge/openwop/index.ts";
import { liveLog } from "../../edge/openwop/log.ts";
import { httpServer } from "../../runtime/http.ts";
import { traceIdOf } from "../../runtime/trace.ts";
import { grpcClient } from "../kit/grpc.ts";
import { until } from "../kit/until.ts";
import { bearer, startHost, type Host, type Surfaces } from "./host.ts";

let host: Host;
beforeAll(async () => {
  host = await startHost();
}, 60_000);
afterAll(() => host?.[Symbol.asyncDispose]());

const auth = {
  keys: new KeyRing([{ id: "k", sha256: sha256("key"), tenant: "acme", scopes: ["*"] }]),
  allowAnonymous: false,
};
const headers = { authorization: "Bearer key" };

test("a client that leaves while following begins leaves no reading behind", async () => {
  const bus = await host.bed.nats.connect("edge", "edge");
  const left = new AbortController();
  const entries = liveLog(bus, "acme", "any", 1, left.signal);
  const first = entries.next();
  left.abort();
  expect(await first).toEqual({ done: true, value: undefined });
});

test("a client that leaves while its credential is checked leaves no stream behind, and takes up no place", async () => {
  const runId = await host.start("conformance-approval");
  await host.reaches(runId, "waiting-approval");
  const { caller } = host.bed;
  const edge = openwopEdge({ caller, auth, inflightCap: 1, ratePerSecond: 0, now: Date.now });
  const app = httpServer();
  const checked = Promise.withResolvers<void>();
  const left = Promise.withResolvers<void>();
  let asked = 0;
  app.addHook("onRequest", async (_request, { raw }) => {
    asked++;
    raw.once("close", () => left.resolve());
    return checked.promise;
  });
  edge.routes(app);
  const base = await app.listen({ host: "127.0.0.1", port: 0 });
  try {
    const leaving = new AbortController();
    const followed = fetch(`${base}/v1/runs/${runId}/events`, { headers, signal: leaving.signal });
    await until(() => asked === 1, "the request");
    leaving.abort();
    await expect(followed).rejects.toThrow();
    await left.promise;
    checked.resolve();
    await until(
      async () => (await fetch(`${base}/v1/runs/${runId}`, { headers })).status === 200,
      "the place of who has left",
    );
  } finally {
    await app.close();
  }
});

test("events of a run that goes on end with UNAVAILABLE, and another edge has the rest", async () => {
  const runId = await host.start("conformance-delay", { inputs: { delayMs: 3_000 } });
  const closing = (await host.listen({})) as Surfaces & AsyncDisposable;
  using client = grpcClient(EngineDefinition, closing.grpcAddress);
  const seen: bigint[] = [];
  const request = { run_id: runId, last_sequence: -1n };
  const followed = (async () => {
    for await (const { seq } of client.stream("streamRunEvents", request, { ...bearer(), timeoutMs: 60_000 }))
      seen.push(seq);
  })().then(
    () => status.OK,
    ({ code }: ServiceError) => code,
  );
  await until(() => seen.length > 0, "the first event");
  await closing[Symbol.asyncDispose]();
  expect(await followed).toBe(status.UNAVAILABLE);

  const rest: string[] = [];
  const from = { run_id: runId, last_sequence: seen.at(-1) ?? -1n };
  for await (const { seq, type } of host.grpc.stream("streamRunEvents", from, { ...bearer(), timeoutMs: 60_000 })) {
    expect(seen).not.toContain(seq);
    rest.push(type);
  }
  expect(rest.at(-1)).toBe("run.completed");
});

test("events that are asked for while the bus is away are refused before any is promised, and the answer names the trace of the log", async () => {
  const runId = await host.start("conformance-approval");
  await host.reaches(runId, "waiting-approval");
  const { caller, nats } = host.bed;
  const logged: string[] = [];
  const onError = (_error: unknown, _what: string, traceparent: string): void =>
    void logged.push(traceIdOf(traceparent));
  const edge = openwopEdge({ caller, auth, inflightCap: 9, ratePerSecond: 0, now: Date.now, onError });
  const app = httpServer();
  edge.routes(app);
  const base = await app.listen({ host: "127.0.0.1", port: 0 });
  try {
    await nats.server.kill();
    await until(() => !caller.bus.connected, "the loss of the connection");
    for (const path of ["", "/events", "/events/poll"]) {
      const answer = await fetch(`${base}/v1/runs/${runId}${path}`, { headers });
      const body = (await answer.json()) as { error: string; details: { correlationId: string } };
      expect([path, answer.status, body.error]).toEqual([path, 503, "service_unavailable"]);
      expect([path, logged.at(-1)]).toEqual([path, body.details.correlationId]);
    }
    const stream = host.grpc.stream("streamRunEvents", { run_id: runId }, { ...bearer(), timeoutMs: 60_000 });
    await expect(stream[Symbol.asyncIterator]().next()).rejects.toMatchObject({ code: status.UNAVAILABLE });
  } finally {
    await nats.server.restart();
    await until(() => caller.bus.connected, "the connection");
    await app.close();
  }
  await until(async () => (await host.events(runId)).some(({ type }) => type === "interrupt.requested"), "the events");
});
