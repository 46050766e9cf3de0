/** What nobody of ours would write, in the logs and buckets that tools workers read: it is left aside, told by who verifies, and all else goes on. */
import { afterAll, beforeAll, expect } from "vitest";
import { publish } from "../../bus/publish.ts";
import { systemIds } from "../../runtime/ids.ts";
import { until } from "../../test/kit/until.ts";
import { verifies } from "../../test/kit/verifies.ts";
import { buckets } from "../../contracts/streams.ts";
import { startTestbed, type Testbed } from "./testbed.ts";

let bed: Testbed;
beforeAll(async () => {
  bed = await startTestbed({}, 0);
  await (await bed.startWorker()).close(); // makes streams and buckets
}, 60_000);
afterAll(() => bed[Symbol.asyncDispose]());

const rubbish = [
  "null",
  "[]",
  "5",
  "{",
  "{}",
  '{"state":"started"}',
  '{"state":"started","due_at":1}',
  '{"rows":5}',
  '{"rows":[null]}',
  '{"rows":[{"id":7}]}',
  '{"rows":[]}',

  '{"grants":5}',
  '{"grants":[null]}',
  '{"definition":null}',
  '{"definition":{"name":"x.y"}}',
  '{"status":"pending"}',
];

verifies("clear-failure", "tools: rubbish in their logs and buckets stops neither calls nor the sweeper", async () => {
  const bus = await bed.nats.connect("poison", "worker");
  for (const { name } of [buckets.toolRegistry, buckets.toolGrants, buckets.toolApprovals, buckets.toolClaims])
    for (const [n, text] of rubbish.entries())
      for (const key of [`default.x${n}`, "default"]) await publish(bus, `$KV.${name}.${key}`, text);
  for (const subject of ["log.tools.exec.default.t.x", "log.tools.exec.default.=.y", "log.tools.exec.a"])
    for (const text of rubbish) await publish(bus, subject, text);
  const execution_id = systemIds.v4();
  const vanished = { execution_id, tenant: "default", task_id: "t", tool_name: "fs.write", agent_id: "a", reason: "" };
  const more = { state: "started", input_hash: "", idempotent: false, backup_id: "", node: "gone", steps: [] } as const;
  await bed.executions.start({ ...vanished, ...more, started_at: Date.now(), due_at: Date.now() });

  await bed.startWorker();
  const state = async () => (await bed.executions.find("default", execution_id))?.execution.state;
  await until(async () => (await state()) === "unknown", "the sweeper");
  expect(((await bed.rpc("list_tools", {}))["tools"] as unknown[]).length).toBeGreaterThan(80);
  expect(await bed.run("fs.stat", { path: bed.root })).toMatchObject({ success: true });
  expect(await bed.run("plugin.list")).toMatchObject({ success: true, output: { count: 0 } });
  expect(await bed.rpc("rollback", { execution_id: "y" })).toMatchObject({
    error: expect.stringContaining("there is no execution y") as string,
  });
  const ask = (what: string, request: object) =>
    bed.caller.request(`beamline.tools.v1.${what}`, request, { timeoutMs: 10_000 });
  expect(await ask("executions.list", { task_id: "t" })).toMatchObject({ executions: [{ execution_id }] });
  expect(await ask("approvals.list", {})).toEqual({ approvals: [] });
  await expect(bed.run("fs.stat", { path: bed.root }, { agent: "x1" })).rejects.toMatchObject({ code: "data_loss" });
});

verifies(
  "clear-failure",
  "tools: a ledger with something else at its end goes on, and its verification says so",
  async () => {
    const bus = await bed.nats.connect("poison", "worker");
    const before = await bed.ledger.verify("default");
    expect(before).toMatchObject({ ok: true });
    for (const text of rubbish) await publish(bus, "log.tools.audit.default", text);
    expect(await bed.run("fs.stat", { path: bed.root })).toMatchObject({ success: true });
    const [row] = await bed.ledger.query("default", { limit: 1 });
    expect(row).toMatchObject({ id: before.rows + 1, tool_name: "fs.stat" });
    expect(await bed.ledger.verify("default")).toEqual({
      ok: false,
      rows: before.rows,
      problem: expect.stringContaining("holds no rows: it is not ours") as string,
    });
  },
);
