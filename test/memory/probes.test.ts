/** The probe list of the contract, over NATS and over gRPC, against the same worker: one contract, the same results and the same errors. */
import { credentials as channel, status, type ServiceError } from "@grpc/grpc-js";
import { afterAll, beforeAll, describe, expect } from "vitest";
import { BeamlineError, codeOfGrpcStatus } from "../../contracts/errors.ts";
import { MemoryServiceDefinition } from "../../contracts/gen/aios/memory.ts";
import { routesOf } from "../../contracts/routes.ts";
import { freePort } from "../../deploy/local/ports.ts";
import { openEdge } from "../../edge/edge.ts";
import { Scope } from "../../runtime/lifecycle.ts";
import { grpcClient, type GrpcClient } from "../kit/grpc.ts";
import { until } from "../kit/until.ts";
import { verifies } from "../kit/verifies.ts";
import type { At } from "./probe.ts";
import { hotProbes } from "./probes.hot.ts";
import { longTermProbes } from "./probes.longterm.ts";
import { startWorld, type World } from "./world.ts";

const probes = [...hotProbes, ...longTermProbes];
let world: World;
const edge = new Scope();
let client: GrpcClient<typeof MemoryServiceDefinition>;

beforeAll(async () => {
  world = await startWorld({ syncInterval: "10s" });
  await world.worker();
  const [grpc, http] = [await freePort(), await freePort()];
  const { user, password, inboxPrefix } = world.nats.credentials.edge;
  await openEdge(edge, {
    BEAMLINE_LOG_LEVEL: "silent",
    BEAMLINE_GRPC_ADDR: `127.0.0.1:${grpc}`,
    BEAMLINE_HTTP_ADDR: `127.0.0.1:${http}`,
    NATS_URL: world.nats.server.url,
    NATS_USER: user,
    NATS_PASSWORD: password,
    NATS_INBOX_PREFIX: inboxPrefix,
  });
  edge.ready();
  client = grpcClient(MemoryServiceDefinition, `127.0.0.1:${grpc}`, channel.createInsecure());
  await until(() => client.call("getRecentEvents", {}).then(() => true));
}, 60_000);

afterAll(async () => {
  client[Symbol.dispose]();
  await edge.close();
  await world[Symbol.asyncDispose]();
});

describe.each(["nats", "grpc"] as const)("over %s", (transport) => {
  for (const [n, probe] of probes.entries()) {
    verifies(
      "one-contract",
      `aios.memory over ${transport}: ${probe.name}`,
      () => probe.run(at(transport, `${transport}-${n}`)),
      { timeout: 30_000 },
    );
  }
});

verifies(
  "clear-failure",
  "memory: bytes that are not UTF-8 are refused, over gRPC with their field and over NATS as a body, and store nothing",
  async () => {
    const nonsense = Buffer.from([0x22, 0xff, 0xfe, 0x22]);
    const category = "nonsense";
    for (const critical of [false, true])
      await expect(client.call("pushEvent", { category, critical, data_json: nonsense })).rejects.toMatchObject({
        code: status.INVALID_ARGUMENT,
        details: expect.stringContaining("data_json") as string,
      });
    const body = Buffer.concat([Buffer.from(`{"category":"${category}","data_json":`), nonsense, Buffer.from("}")]);
    const reply = await world.bus.nc.request(routesOf(MemoryServiceDefinition).pushEvent.subject, body);
    expect(reply.headers?.get("Nats-Service-Error-Code") ?? "").not.toBe("");
    expect(reply.string()).toContain("UTF-8");
    expect((await client.call("getRecentEvents", { count: -1, category })).events).toEqual([]);
  },
);

verifies("clear-failure", "memory: a body that is JSON and no object is refused by name on every subject", async () => {
  for (const { subject } of Object.values(routesOf(MemoryServiceDefinition)))
    for (const body of ["null", "[]", '"x"', "7"]) {
      const reply = await world.bus.nc.request(subject, body);
      expect(reply.json()).toMatchObject({
        error: { code: "invalid_argument", message: "body must be a JSON object", details: { field: "body" } },
      });
    }
});

function at(transport: "nats" | "grpc", id: string): At {
  const call: World["call"] =
    transport === "nats"
      ? (method, request) => world.call(method, request, { tenant: "probes" })
      : (method, request) => client.call(method, request, { timeoutMs: 20_000 });
  return {
    id,
    call,
    async refused(method, request) {
      try {
        await call(method, request);
      } catch (thrown) {
        if (thrown instanceof BeamlineError) return { code: thrown.code, message: thrown.message };
        const { code, details } = thrown as ServiceError;
        return { code: codeOfGrpcStatus(code), message: details };
      }
      return expect.unreachable(`${method} was not refused`);
    },
  };
}
