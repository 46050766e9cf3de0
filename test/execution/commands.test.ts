/** The commands for assignments, usage and dead letters, against running workers. */
import { Command } from "commander";
import { afterAll, beforeAll, expect, test } from "vitest";
import { publish } from "../../bus/publish.ts";
import { dlqCommand } from "../../cli/dlq.ts";
import { execCommand } from "../../cli/exec.ts";
import type { CommandContext } from "../../cli/exec.context.ts";
import { usageCommand } from "../../cli/usage.ts";
import { startWorld, type World } from "../kit/world.ts";
import { until } from "../kit/until.ts";
import { count, usageFor } from "./kit.ts";

let world: World;
beforeAll(async () => {
  world = await startWorld({
    workers: ["execution", "usage"],
    syncInterval: "10s",
    env: { BEAMLINE_EXEC_HEARTBEAT_MS: "100" },
  });
});
afterAll(() => world[Symbol.asyncDispose]());

type Printed = Record<string, unknown>;

/** Runs a command and gives what it printed. */
async function run(...args: string[]): Promise<Printed[]> {
  const printed: Printed[] = [];
  const context: CommandContext = {
    connect: () =>
      Promise.resolve({ bus: world.bus, caller: world.caller, [Symbol.asyncDispose]: () => Promise.resolve() }),
    out: () => ({
      json: false,
      line: (text) => void printed.push({ text }),
      record: (record) => void printed.push({ ...record }),
      table: (rows) => void printed.push(...rows),
    }),
  };
  const program = new Command().exitOverride();
  for (const add of [execCommand, usageCommand, dlqCommand]) add(program, context);
  await program.parseAsync(["node", "beamline", ...args]);
  return printed;
}

test("an assignment is published, waited for, shown and billed", async () => {
  const [result] = await run("exec", "publish", "echo", '{"a":1}', "-t", "cli");
  expect(result).toMatchObject({ status: "success", payload: { a: 1 }, tenant_id: "cli" });
  const id = String(result?.["assignment_id"]);
  expect((await run("exec", "show", id)).map(({ what, status }) => [what, status])).toEqual([
    ["assignment", ""],
    ["ack", "accepted"],
    ["result", "success"],
  ]);
  await usageFor(world.bus, id);
  const usage = await run("usage", "-t", "cli");
  expect(usage).toMatchObject([
    { provider: "demo", requests: 1, failed: 0, cost_usd: "0.000000" },
    { text: "1 requests, 0.000000 USD" },
  ]);
  expect(await run("exec", "workers", "--for", "300")).toMatchObject([{ status: "ready", jobs_in_flight: 0 }]);
});

test("a running assignment is watched and cancelled", async () => {
  const [published] = await run(
    "exec",
    "publish",
    "sleep",
    '{"ms":20000}',
    "-t",
    "cli",
    "--deadline",
    "30000",
    "--no-wait",
  );
  const id = String(published?.["assignment_id"]);
  await until(async () => (await run("exec", "show", id)).some(({ what }) => what === "ack"), "the acknowledgement");
  const watching = run("exec", "watch", "--id", id, "--count", "1");
  await world.bus.flush();
  expect(await run("exec", "cancel", id, "-t", "cli", "--reason", "enough")).toMatchObject([
    { ok: true, status: "cancelling" },
  ]);
  expect(String((await watching)[0]?.["text"])).toContain("cancelled");
});

test("dead letters are listed, shown and sent back, one or all", async () => {
  const { bus } = world;
  for (const n of [1, 2, 3])
    await publish(
      bus,
      "caf.exec.result.v1",
      JSON.stringify({ assignment_id: `dead-${n}`, status: "success", provider_id: "p", job: { type: "x" } }),
      { headers: { trace_id: "t" } },
    );
  await until(async () => (await count(bus, "DLQ", "caf.exec.result.v1.dlq")) === 3, "dead letters");
  const listed = await run("dlq", "list", "--subject", "caf.exec.>", "--reason", "validation_failed");
  expect(listed).toMatchObject([
    { subject: "caf.exec.result.v1", error: expect.stringContaining("tenant_id") as string, redrivable: true },
    {},
    {},
  ]);
  const [first] = await run("dlq", "show", String(listed[0]?.["seq"]));
  expect(JSON.parse(String(first?.["payload"]))).toMatchObject({ assignment_id: "dead-1" });
  expect(await run("dlq", "redrive", String(listed[0]?.["seq"]))).toMatchObject([
    { outcome: "redriven", stream: "EXEC" },
  ]);
  await until(async () => (await run("dlq", "list")).length === 3, "the letter to come again");
  expect(await run("dlq", "redrive", "--all", "--reason", "validation_failed")).toMatchObject([
    { outcome: "redriven" },
    { outcome: "redriven" },
    { outcome: "redriven" },
  ]);
  const again = await until(async () => {
    const rows = await run("dlq", "list");
    return rows.length === 3 && rows;
  }, "the letters to come again");
  await run("dlq", "discard", ...again.map(({ seq }) => String(seq)));
  expect(await run("dlq", "list")).toEqual([]);
  await expect(run("dlq", "redrive")).rejects.toThrow("--all");
});
