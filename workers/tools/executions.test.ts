/** The record of what tools do, on a real server. */
import { afterAll, beforeAll, expect } from "vitest";
import type { Bus } from "../../bus/connect.ts";
import { ensureStreams } from "../../bus/streams.ts";
import { streams } from "../../contracts/streams.ts";
import { systemIds } from "../../runtime/ids.ts";
import { startTestNats, type TestNats } from "../../test/kit/servers.ts";
import { verifies } from "../../test/kit/verifies.ts";
import { Executions } from "./executions.ts";

let nats: TestNats;
let bus: Bus;
beforeAll(async () => {
  nats = await startTestNats();
  bus = await nats.connect("worker-tools");
  await ensureStreams(bus, [streams.toolExecutions]);
}, 60_000);
afterAll(() => nats?.stop());

verifies("crash-safe", "tools: what a tool did while the bus was away is recorded, and can be undone", async () => {
  const executions = new Executions(bus);
  const execution_id = systemIds.v4();
  const known = await executions.start({
    execution_id,
    tenant: "acme",
    task_id: "t",
    tool_name: "fs.write",
    agent_id: "a",
    reason: "",
    state: "started",
    input_hash: "",
    idempotent: true,
    backup_id: "",
    node: "here",
    steps: [],
    started_at: 1,
    due_at: 2,
  });
  await nats.server.kill();
  await Promise.all([executions.change(known, { state: "finished", success: true }, 3), nats.server.restart()]);
  expect((await executions.find("acme", execution_id))?.execution).toMatchObject({ state: "finished", success: true });
});
