/** One trace from the client through the edge and the bus to the worker, seen by a collector as an operator would run one. */
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { afterAll, beforeAll, expect } from "vitest";
import { RouterDefinition } from "../../contracts/gen/beamline/flow/v1/flow.ts";
import { grpcClient } from "../kit/grpc.ts";
import { spansIn, type Span } from "../kit/otlp.ts";
import { until } from "../kit/until.ts";
import { verifies } from "../kit/verifies.ts";
import { startWorld, type World } from "../kit/world.ts";

const spans: Span[] = [];
let collector: Server;
let world: World;

beforeAll(async () => {
  collector = createServer((request, response) => {
    const parts: Buffer[] = [];
    request.on("data", (chunk: Buffer) => parts.push(chunk));
    request.on("end", () => {
      spans.push(...spansIn(Buffer.concat(parts), request.headers["content-type"] ?? ""));
      response.end();
    });
  });
  await new Promise<void>((resolve) => collector.listen(0, "127.0.0.1", resolve));
  world = await startWorld({
    workers: ["routing"],
    processes: true,
    syncInterval: "1m",
    env: {
      OTEL_EXPORTER_OTLP_ENDPOINT: `http://127.0.0.1:${(collector.address() as AddressInfo).port}`,
      OTEL_TRACES_SAMPLER_ARG: "0",
      OTEL_BSP_SCHEDULE_DELAY: "50",
    },
  });
}, 60_000);
afterAll(async () => {
  await world?.[Symbol.asyncDispose]();
  collector?.close();
});

const request = { message: { message_id: "m1", tenant_id: "acme", message_type: "chat", payload: Buffer.from("{}") } };

verifies("one-trace", "a sampled call is one trace: client, edge, worker, each the parent of the next", async () => {
  using router = grpcClient(RouterDefinition, world.grpc);
  const [traceId, clientSpan] = ["0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"];
  await router.call("decide", request, { metadata: { traceparent: `00-${traceId}-${clientSpan}-01` } });
  const edge = await until(() => spans.find((span) => span.service === "beamline-edge"));
  const worker = await until(() =>
    spans.find((span) => span.service === "beamline-worker-routing" && span.name === "beamline.router.v1.decide"),
  );
  expect(edge).toMatchObject({ name: "beamline.flow.v1.Router/Decide", traceId, parentSpanId: clientSpan });
  expect(worker).toMatchObject({ traceId, parentSpanId: edge.spanId });
});

verifies(
  "one-trace",
  "a NATS client's trace goes on in the worker, and a call that is not sampled makes no span",
  async () => {
    const traceId = "11111111111111111111111111111111";
    const decide = (flags: string): Promise<unknown> =>
      world.caller.request(
        "beamline.router.v1.decide",
        { message: { ...request.message, payload: "{}" } },
        { timeoutMs: 5_000, headers: { traceparent: `00-${traceId}-2222222222222222-${flags}` } },
      );
    await decide("00");
    await decide("01");
    const seen = await until(() => {
      const found = spans.filter((span) => span.traceId === traceId);
      return found.length > 0 && found;
    });
    expect(seen.filter((span) => span.parentSpanId === "2222222222222222")).toHaveLength(1);
  },
);
