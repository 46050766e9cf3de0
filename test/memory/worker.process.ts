/** A memory worker in a process of its own, for tests that kill it. Says `ready` once it serves. */
import { Caller } from "../../bus/call.ts";
import { Bus } from "../../bus/connect.ts";
import { Server } from "../../bus/serve.ts";
import { loadConfig } from "../../runtime/config.ts";
import { Scope } from "../../runtime/lifecycle.ts";
import { silentLogger } from "../../runtime/log.ts";
import { createRegistry } from "../../runtime/metrics.ts";
import { workerSettings } from "../../runtime/settings.ts";
import { memoryWorker } from "../../workers/memory/worker.ts";

const { NATS_URL = "", NATS_USER = "", NATS_PASSWORD = "", NATS_INBOX_PREFIX = "" } = process.env;
const bus = await Bus.connect({
  url: NATS_URL,
  name: "worker-memory",
  user: NATS_USER,
  password: NATS_PASSWORD,
  inboxPrefix: NATS_INBOX_PREFIX,
});
const scope = new Scope();
const config = loadConfig({ ...workerSettings, ...memoryWorker.settings }, process.env);
const endpoints = await memoryWorker.open(scope, {
  config,
  bus,
  caller: new Caller(bus),
  log: silentLogger,
  metrics: createRegistry(),
  calls: () => ({ active: 0, waiting: 0 }),
  env: {},
});
await new Server(bus, endpoints, { name: "memory", version: "0.0.0" }).ready();
process.send?.("ready");
