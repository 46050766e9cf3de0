/** A whole routing worker on a real bus, and a client beside it, for tests. */
import { isError, type Caller } from "../../bus/call.ts";
import type { Bus } from "../../bus/connect.ts";
import { Server } from "../../bus/serve.ts";
import { ensureBuckets, ensureStreams } from "../../bus/streams.ts";
import type { JsonObject } from "../../contracts/codec.ts";
import { createRegistry } from "../../runtime/metrics.ts";
import { adminCheck } from "./admin/adminkey.ts";
import { busDeadLetters } from "./intake/deadletters.ts";
import { Measures } from "./measures.ts";
import { PolicyStore } from "./policies/policystore.ts";
import { seedDefaultPolicy } from "./policies/seed.ts";
import { localPorts, routingEndpoints, routingWorker } from "./worker.ts";

export const KEY = "test-admin-key";
export const DECIDE = "beamline.router.v1.decide";

export interface TestWorker {
  readonly bus: Bus;
  readonly store: PolicyStore;
  stop(): Promise<void>;
}

/** Starts a worker as `routingWorker` opens one. */
export async function startTestWorker(bus: Bus): Promise<TestWorker> {
  await ensureStreams(bus, routingWorker.streams ?? []);
  await ensureBuckets(bus, routingWorker.buckets ?? []);
  const store = new PolicyStore(bus);
  await store.open();
  await seedDefaultPolicy(store);
  const deadLetters = busDeadLetters(bus, { node: bus.name, now: () => Date.now() });
  const ports = { ...localPorts(store, new Measures(createRegistry(), DECIDE)), check: adminCheck(KEY), deadLetters };
  const server = new Server(bus, routingEndpoints(ports), { name: "routing", version: "0" });
  await server.ready();
  return {
    bus,
    store,
    async stop() {
      await server.stop(Date.now() + 1_000);
      store.close();
    },
  };
}

/** A request and its reply as JSON, errors included. */
export async function ask(
  client: Caller,
  subject: string,
  request: unknown,
  headers: Record<string, string> = {},
): Promise<{ body: JsonObject; error: boolean }> {
  const text = typeof request === "string" ? request : JSON.stringify(request);
  const reply = await client.call(subject, text, { timeoutMs: 5_000, headers });
  return { body: JSON.parse(reply.text) as JsonObject, error: isError(reply.headers) };
}
