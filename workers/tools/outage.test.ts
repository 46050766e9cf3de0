/** Tool calls while the bus, or the worker itself, is away for a moment. */
import { readFile, rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, expect } from "vitest";
import { ObjectStore } from "../../bus/objects.ts";
import { ensureStreams } from "../../bus/streams.ts";
import { BeamlineError } from "../../contracts/errors.ts";
import { objects, streams } from "../../contracts/streams.ts";
import { systemClock } from "../../runtime/clock.ts";
import { verifies } from "../../test/kit/verifies.ts";
import { Backups } from "./backup.ts";
import { Confined } from "./files/confine.ts";
import { startTestbed, type Testbed } from "./testbed.ts";
import type { Call } from "./tool.ts";
import { undo } from "./undo.ts";

let bed: Testbed;
beforeAll(async () => {
  bed = await startTestbed({ BEAMLINE_TOOLS_CONFIRM: "marked" });
}, 60_000);
afterAll(() => bed[Symbol.asyncDispose]());

/** Backups whose store is away for the first few times. */
class Away extends Backups {
  away = 3;

  override read(...args: Parameters<Backups["read"]>): ReturnType<Backups["read"]> {
    if (this.away === 0) return super.read(...args);
    this.away--;
    return Promise.reject(new BeamlineError("unavailable", "JetStream does not answer"));
  }
}

/** A tool on the bus that does what it is told when it is called. */
async function offer(name: string, definition: object, does: () => Promise<void>): Promise<void> {
  const outside = await bed.nats.connect("handler", "publisher");
  const subject = `beamline.ext.tools.${name}`;
  outside.nc.subscribe(subject, {
    callback: (_error, message) =>
      void does().then(() => message.respond(JSON.stringify({ success: true, output_json: "{}" }))),
  });
  await outside.flush();
  const tool = { name: `out.${name}`, ...definition };
  expect(await bed.rpc("register", { tool, handler_address: `nats:${subject}` })).toMatchObject({ accepted: true });
}

verifies(
  "effect-once",
  "tools: a call whose worker was taken for vanished and was not is recorded as it ended, and never reported as unknown",
  async () => {
    let calls = 0;
    await offer("slow", {}, async () => {
      calls++;
      const [known] = await bed.executions.ofTask("default", "slow");
      if (known === undefined) throw new Error("nothing was recorded");
      // As the sweeper of another worker does when this one is late.
      await bed.executions.change(known, { state: "unknown", success: false, error: "vanished" }, Date.now());
    });
    const call = () => bed.run("out.slow", {}, { task: "slow", key: "once" });
    const done = await call();
    expect(done).toMatchObject({ success: true });
    expect((await bed.executions.find("default", done.execution_id))?.execution).toMatchObject({
      state: "finished",
      success: true,
      error: "",
    });
    expect(await call()).toMatchObject({ success: true, execution_id: done.execution_id });
    expect(calls).toBe(1);
  },
);

verifies(
  "effect-once",
  "tools: an approval and an idempotency key are not used up by a call that could not be recorded and did not run",
  async () => {
    let calls = 0;
    await offer("risky", { requires_confirmation: true }, async () => void calls++);
    const call = () => bed.run("out.risky", {}, { key: "risky" });
    const asked = await call();
    const approval_id = /approval (\S+) is pending/.exec(asked.error)?.[1];
    await bed.caller.request(
      "beamline.tools.v1.approvals.decide",
      { approval_id, approve: true, by: "me" },
      { timeoutMs: 10_000 },
    );
    await bed.bus.jsm.streams.delete(streams.toolExecutions.name);
    await expect(call()).rejects.toMatchObject({ code: "unavailable" });
    await ensureStreams(bed.bus, [streams.toolExecutions]);
    expect(await call()).toMatchObject({ success: true });
    expect(calls).toBe(1);
    expect(await call()).toMatchObject({ success: true }); // the answer of the first, by its key
    expect((await bed.run("out.risky", {})).error).toContain("was already used");
    expect(calls).toBe(1);
  },
);

verifies("crash-safe", "tools: a rollback whose backup cannot be read for a while is not left half done", async () => {
  const store = await ObjectStore.open(bed.bus, objects.toolBackups);
  const files = await Confined.open([bed.root]);
  const path = join(bed.root, "replaced");
  await writeFile(path, "as it was");
  const backups = new Away(store);
  const signal = AbortSignal.timeout(60_000);
  const take = async () => {
    await using place = await files.place(path);
    return await backups.take(place, "replaced", signal);
  };
  const before = await take();
  if (before === undefined) throw new Error("nothing was kept");
  await rename(path, join(bed.root, "elsewhere"));
  await writeFile(path, "as the tool left it");
  const call = { host: { files, backups, clock: systemClock }, signal } as unknown as Call;
  const back = { op: "move", from: join(bed.root, "elsewhere"), to: join(bed.root, "where it came from") } as const;
  await undo([{ op: "put_back", path, before }, back], call, true);
  expect(backups.away).toBe(0);
  expect(await readFile(path, "utf8")).toBe("as it was");
});
