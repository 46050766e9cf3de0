/** A runs worker as a process of its own, for tests that kill it. Settings by environment; says `ready` to its parent. */
import { Caller } from "../../bus/call.ts";
import { Bus } from "../../bus/connect.ts";
import { Server } from "../../bus/serve.ts";
import { ensureBuckets, ensureObjects, ensureStreams } from "../../bus/streams.ts";
import { loadConfig } from "../../runtime/config.ts";
import { Scope } from "../../runtime/lifecycle.ts";
import { silentLogger } from "../../runtime/log.ts";
import { createRegistry } from "../../runtime/metrics.ts";
import { runsWorker } from "../../workers/runs/worker.ts";

const { env } = process;
const scope = new Scope({ drainMs: 3_000 });
const bus = scope.use(
  "bus",
  await Bus.connect({
    url: env["NATS_URL"] ?? "",
    name: "worker-runs",
    user: env["NATS_USER"] ?? "",
    password: env["NATS_PASSWORD"] ?? "",
    inboxPrefix: env["NATS_INBOX_PREFIX"] ?? "_INBOX",
  }),
  (b) => b.drain(),
);
await ensureStreams(bus, runsWorker.streams ?? []);
await ensureBuckets(bus, runsWorker.buckets ?? []);
await ensureObjects(bus, runsWorker.objects ?? []);
const caller = scope.use("caller", new Caller(bus), (c) => c.stop());
const { REDIS_URL, OPENWOP_LEASE_MS, OPENWOP_FIXTURES, OPENWOP_EGRESS_ALLOW } = env;
const config = loadConfig(runsWorker.settings, { REDIS_URL, OPENWOP_LEASE_MS, OPENWOP_FIXTURES, OPENWOP_EGRESS_ALLOW });
const context = {
  config,
  bus,
  caller,
  log: silentLogger,
  metrics: createRegistry(),
  calls: () => ({ active: 0, waiting: 0 }),
  env,
};
const server = new Server(bus, await runsWorker.open(scope, context), { name: "runs", version: "0.0.0" });
scope.use("intake", server, (s, deadline) => s.stop(Date.now() + deadline.remainingMs()));
await server.ready();
process.once("SIGTERM", () => void scope.close().then(() => process.exit(0)));
process.send?.("ready");
