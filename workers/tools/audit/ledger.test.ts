/** The audit ledger against whoever may write to its stream: what is changed, forged or deleted is noticed. */
import { afterEach, beforeEach, expect, test } from "vitest";
import { publish } from "../../../bus/publish.ts";
import { streams } from "../../../contracts/streams.ts";
import { chained, emptyChain, headOf, type Happening, type Row } from "./chain.ts";
import { Ledger } from "./ledger.ts";
import { startTestbed, type Testbed } from "../testbed.ts";
import { verifies } from "../../../test/kit/verifies.ts";

const STREAM = streams.toolAudit.name;
const subject = "log.tools.audit.default";

let bed: Testbed;
beforeEach(async () => {
  bed = await startTestbed();
}, 60_000);
afterEach(() => bed[Symbol.asyncDispose]());

const happening = (n: number): Happening => ({
  execution_id: `e${n}`,
  tool_name: "fs.read",
  agent_id: "task-agent",
  task_id: "",
  reason: "",
  success: true,
  duration_ms: 1,
  timestamp: "2026-11-01T00:00:00.000000Z",
});
const says = (text: string): unknown => expect.stringContaining(text);

async function filled(rows: number): Promise<Ledger> {
  for (let n = 0; n < rows; n++) await bed.ledger.append("default", happening(n));
  return new Ledger(bed.bus);
}

test("rows of many writers make one chain", async () => {
  const writers = Array.from({ length: 4 }, () => new Ledger(bed.bus));
  const rows = writers.flatMap((writer, w) =>
    Array.from({ length: 50 }, (_, n) => writer.append("default", happening(w * 50 + n))),
  );
  await Promise.all(rows);
  expect(await bed.ledger.verify("default")).toEqual({ ok: true, rows: 200 });
});

verifies(
  "crash-safe",
  "tools A3: a row whose ledger begins while the bus is away is stored once the bus is back",
  async () => {
    await filled(1);
    const fresh = new Ledger(bed.bus); // it has not read the end of the chain yet
    await bed.nats.server.kill();
    await Promise.all([fresh.append("default", happening(1)), bed.nats.server.restart()]);
    expect(await bed.ledger.verify("default")).toEqual({ ok: true, rows: 2 });
  },
);

test("rows cut off the end are noticed", async () => {
  const ledger = await filled(5);
  expect(await ledger.verify("default")).toEqual({ ok: true, rows: 5 });
  await bed.bus.jsm.streams.deleteMessage(STREAM, 5);
  expect(await ledger.verify("default")).toEqual({ ok: false, rows: 4, problem: says("1 messages were deleted") });
  await filled(1);
  expect(await ledger.verify("default")).toMatchObject({ ok: false });
});

test("a ledger emptied altogether is noticed, one that never held anything is right", async () => {
  expect(await bed.ledger.verify("default")).toEqual({ ok: true, rows: 0 });
  const ledger = await filled(3);
  await bed.bus.jsm.streams.purge(STREAM);
  expect(await ledger.verify("default")).toEqual({ ok: false, rows: 0, problem: says("3 messages were deleted") });
});

test.each<[string, (row: Row) => Row]>([
  ["a field outside the published hash", (row) => ({ ...row, success: false })],
  ["a field inside it", (row) => ({ ...row, agent_id: "someone-else" })],
  ["a field added", (row) => ({ ...row, node: "elsewhere" })],
  ["a number skipped", (row) => ({ ...row, id: row.id + 1 })],
])("a row with %s is found", async (_what, change) => {
  const ledger = await filled(2);
  const rows: Row[] = [];
  for await (const row of ledger.rows("default")) rows.push(row);
  const head = rows.reduce((_, row) => headOf(row), emptyChain);
  const forged = change(chained(head, happening(2)));
  await publish(bed.bus, subject, JSON.stringify({ rows: [forged] }), {});
  expect(await ledger.verify("default")).toMatchObject({ ok: false, rows: 2, problem: says(`row ${forged.id}`) });
});

test("a question that makes no sense is refused by its field", async () => {
  const ask = (what: string, request: object): Promise<unknown> =>
    bed.caller.request(`beamline.tools.v1.${what}`, request, { timeoutMs: 10_000 });
  const refusals: [string, object, string][] = [
    ["audit.query", { since: "yesterday" }, "since is not a time: yesterday"],
    ["audit.query", { until: "31.12." }, "until is not a time: 31.12."],
    ["audit.query", { limit: 0 }, "limit must be >= 1"],
    ["approvals.decide", { approve: true, by: "me" }, "approval_id is missing"],
    ["rollback_task", [], "request must be object"],
  ];
  for (const [what, request, message] of refusals)
    await expect(ask(what, request)).rejects.toMatchObject({ code: "invalid_argument", message });
});
