/** The edge as standard tools see it: health, reflection, TLS, listeners that would be open to anyone. */
import { readFile } from "node:fs/promises";
import { credentials, status as grpc, type ServiceError } from "@grpc/grpc-js";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Server } from "../../bus/serve.ts";
import { BeamlineError } from "../../contracts/errors.ts";
import { MemoryServiceDefinition } from "../../contracts/gen/aios/memory.ts";
import { RouterDefinition } from "../../contracts/gen/beamline/flow/v1/flow.ts";
import { routesOf, services } from "../../contracts/routes.ts";
import { freePort } from "../../deploy/local/ports.ts";
import { openEdge } from "../../edge/edge.ts";
import { Scope } from "../../runtime/lifecycle.ts";
import { makeCertificates, type Certificates } from "../kit/certificates.ts";
import { grpcClient } from "../kit/grpc.ts";
import { health, reflectedServices, watchHealth } from "../kit/standard.ts";
import { until } from "../kit/until.ts";
import { verifies } from "../kit/verifies.ts";
import { startWorld, type World } from "../kit/world.ts";

let world: World;
beforeAll(async () => {
  world = await startWorld({ syncInterval: "1m" });
});
afterAll(() => world?.[Symbol.asyncDispose]());

const request = { message: { message_id: "m1", tenant_id: "acme", message_type: "chat", payload: Buffer.from("{}") } };

test("reflection lists every service", async () => {
  const listed = await reflectedServices(world.grpc);
  for (const service of services) expect(listed).toContain(service.fullName);
});

test("health of a service follows the worker behind it", async () => {
  expect(await health(world.grpc, "")).toBe("SERVING");
  const stranger = await world.connect("operator", "stranger");
  const rubbish = ["", "{", "null", "[]", "7", `{"name":"routing"}`, `{"name":"routing","metadata":null}`];
  let asked = 0;
  stranger.subscribe("$SRV.PING", ({ reply = "" }) => {
    asked++;
    for (const text of rubbish) stranger.send(reply, text);
  });
  await until(() => asked > 1, "the edge to ask again after such answers");
  expect(await health(world.grpc, "beamline.flow.v1.Router")).toBe("NOT_SERVING");
  const worker = await world.startWorker("routing");
  await until(async () => (await health(world.grpc, "beamline.flow.v1.Router")) === "SERVING");
  await worker.stop();
  await until(async () => (await health(world.grpc, "beamline.flow.v1.Router")) === "NOT_SERVING");
});

test("/healthz lives, /readyz names what is missing, /metrics is Prometheus text", async () => {
  expect((await fetch(`http://${world.http}/healthz`)).status).toBe(200);
  const scope = new Scope();
  const http = `127.0.0.1:${await freePort()}`;
  await openEdge(scope, {
    ...edgeEnv(),
    BEAMLINE_HTTP_ADDR: http,
    BEAMLINE_GRPC_ADDR: "127.0.0.1:0",
    BEAMLINE_EXPECT_WORKERS: "routing,memory",
  });
  scope.ready();
  const ready = await fetch(`http://${http}/readyz`);
  expect(ready.status).toBe(503);
  expect(await ready.json()).toMatchObject({
    ok: false,
    parts: { bus: { ok: true }, "worker memory": { ok: false, detail: "no memory worker answers" } },
  });
  expect(await (await fetch(`http://${http}/metrics`)).text()).toMatch(/^# TYPE nodejs_/m);
  expect((await fetch(`http://${http}/nothing`)).status).toBe(404);
  await scope.close();
});

test("an edge that stops ends watches of its health at once, and closes in time", async () => {
  const scope = new Scope({ drainMs: 60_000 });
  const { grpc: port } = await openEdge(scope, {
    ...edgeEnv(),
    BEAMLINE_DRAIN_MS: "60000",
    BEAMLINE_GRPC_ADDR: "127.0.0.1:0",
    BEAMLINE_HTTP_ADDR: "127.0.0.1:0",
  });
  scope.ready();
  const watch = watchHealth(`127.0.0.1:${port}`, "");
  await until(() => watch.statuses.length > 0, "the watch to begin");
  const { ok, tookMs } = await scope.close();
  expect([ok, await watch.ended]).toEqual([true, grpc.UNAVAILABLE]);
  expect(watch.statuses).toEqual(["SERVING", "NOT_SERVING"]);
  expect(tookMs).toBeLessThan(20_000); // of the 60 s it may wait for calls that end
});

function edgeEnv(): Record<string, string> {
  const { password, inboxPrefix } = world.servers.credentials.edge;
  return {
    ...world.servers.env,
    BEAMLINE_LOG_LEVEL: "silent",
    NATS_USER: "edge",
    NATS_PASSWORD: password,
    NATS_INBOX_PREFIX: inboxPrefix,
  };
}

describe("TLS", () => {
  let certificates: Certificates;
  beforeAll(async () => {
    certificates = await makeCertificates();
  });
  afterAll(() => certificates?.[Symbol.asyncDispose]());

  test("by configuration, and mutual TLS refuses a client without a certificate", async () => {
    const scope = new Scope();
    const { grpc: port } = await openEdge(scope, {
      ...edgeEnv(),
      BEAMLINE_GRPC_ADDR: "127.0.0.1:0",
      BEAMLINE_HTTP_ADDR: "127.0.0.1:0",
      BEAMLINE_GRPC_TLS_CERT: certificates.file("server.crt"),
      BEAMLINE_GRPC_TLS_KEY: certificates.file("server.key"),
      BEAMLINE_GRPC_TLS_CLIENT_CA: certificates.file("ca.crt"),
    });
    scope.ready();
    const ca = await readFile(certificates.file("ca.crt"));
    const code = async (channel: ReturnType<typeof credentials.createSsl>): Promise<[number, string]> => {
      using client = grpcClient(RouterDefinition, `localhost:${port}`, channel);
      return await client.call("decide", request, { timeoutMs: 3_000 }).then(
        () => [grpc.OK, ""],
        (error: ServiceError) => [error.code, error.details],
      );
    };
    const mutual = await code(
      credentials.createSsl(
        ca,
        await readFile(certificates.file("client.key")),
        await readFile(certificates.file("client.crt")),
      ),
    );
    expect(mutual).toEqual([grpc.UNAVAILABLE, expect.stringContaining("no routing worker")]); // it got through to the bus
    const [refused, why] = await code(credentials.createSsl(ca));
    expect(refused).toBe(grpc.UNAVAILABLE);
    expect(why).not.toContain("no routing worker");
    await scope.close();
  });
});

test.each([
  ["BEAMLINE_GRPC_TLS_CERT", "server.key", "server.key", "ca.crt", "holds no certificate in PEM form"],
  [
    "BEAMLINE_GRPC_TLS_KEY",
    "server.crt",
    "server.crt",
    "ca.crt",
    "holds no private key without a passphrase in PEM form",
  ],
  ["BEAMLINE_GRPC_TLS_KEY", "server.crt", "client.key", "ca.crt", "is not the key of the certificate"],
  ["BEAMLINE_GRPC_TLS_CLIENT_CA", "server.crt", "server.key", "server.key", "holds no certificate in PEM form"],
] as const)("a TLS file that is none is refused with its setting: %s", async (setting, cert, key, ca, what) => {
  await using certificates = await makeCertificates();
  const scope = new Scope();
  const opening = openEdge(scope, {
    ...edgeEnv(),
    BEAMLINE_GRPC_ADDR: "127.0.0.1:0",
    BEAMLINE_HTTP_ADDR: "127.0.0.1:0",
    BEAMLINE_GRPC_TLS_CERT: certificates.file(cert),
    BEAMLINE_GRPC_TLS_KEY: certificates.file(key),
    BEAMLINE_GRPC_TLS_CLIENT_CA: certificates.file(ca),
  });
  await expect(opening).rejects.toThrow(new RegExp(`${setting} .*${what}`));
  await scope.close();
});

describe("a listener beyond loopback", () => {
  const beyond = { BEAMLINE_GRPC_ADDR: "0.0.0.0:0", BEAMLINE_HTTP_ADDR: "127.0.0.1:0" };

  test("is refused without authentication", async () => {
    const scope = new Scope();
    await expect(openEdge(scope, { ...edgeEnv(), ...beyond })).rejects.toThrow(
      /needs authentication.*BEAMLINE_API_KEYS_FILE/s,
    );
    await scope.close();
  });

  test("opens when told explicitly to serve anyone", async () => {
    const scope = new Scope();
    const { grpc: port } = await openEdge(scope, { ...edgeEnv(), ...beyond, BEAMLINE_ALLOW_ANONYMOUS: "true" });
    expect(port).toBeGreaterThan(0);
    await scope.close();
  });
});

verifies(
  "clear-failure",
  "an error of too many words for HTTP/2 arrives, and the connection's other calls go on",
  async () => {
    const { getAgentState, getSystemSnapshot } = routesOf(MemoryServiceDefinition);
    const asked = Promise.withResolvers<void>();
    const answer = Promise.withResolvers<string>();
    const common = { kind: "request", dialect: "aios", timeoutMs: 20_000 } as const;
    const slow = { ...common, subject: getSystemSnapshot.subject, name: "slow" };
    const wordy = { ...common, subject: getAgentState.subject, name: "wordy" };
    const server = new Server(
      await world.connect("worker"),
      [
        { ...slow, answer: () => (asked.resolve(), answer.promise) },
        {
          ...wordy,
          answer(text) {
            const { agent_name } = JSON.parse(text) as { agent_name: string };
            const options = { field: "agent_name", details: { agent_name } };
            return Promise.reject(new BeamlineError("not_found", `there is no ${agent_name}`, options));
          },
        },
      ],
      { name: "memory", version: "0" },
    );
    await server.ready();
    using client = grpcClient(MemoryServiceDefinition, world.grpc);
    const other = client.call("getSystemSnapshot", {});
    await asked.promise;
    for (const agent_name of ["x".repeat(4_000), "x".repeat(20_000), "\u00e9".repeat(100_000)]) {
      const error = await client.call("getAgentState", { agent_name }).catch((thrown: ServiceError) => thrown);
      expect(error).toMatchObject({ code: grpc.NOT_FOUND, details: expect.stringContaining("there is no") as string });
      const sent = JSON.stringify((error as ServiceError).metadata.toHttp2Headers()).length;
      expect(sent + encodeURI((error as ServiceError).details).length).toBeLessThan(8_192); // what most clients read
    }
    answer.resolve('{"agents_total":3}');
    expect(await other).toBeDefined();
    await server.stop(Date.now() + 1_000);
  },
);

test("a taken port is said so, with the address", async () => {
  const scope = new Scope();
  await expect(
    openEdge(scope, { ...edgeEnv(), BEAMLINE_GRPC_ADDR: world.grpc, BEAMLINE_HTTP_ADDR: "127.0.0.1:0" }),
  ).rejects.toThrow(world.grpc);
  await scope.close();
});
