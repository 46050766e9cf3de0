/** Tool calls while the bus, or the worker itself, is away for a moment. */
import { afterAll, beforeAll, expect } from "vitest";
import { ensureStreams } from "../../bus/streams.ts";
import { streams } from "../../contracts/streams.ts";
import { verifies } from "../../test/kit/verifies.ts";
import { startTestbed, type Testbed } from "./testbed.ts";

let bed: Testbed;
beforeAll(async () => {
  bed = await startTestbed({ BEAMLINE_TOOLS_CONFIRM: "marked" });
}, 60_000);
afterAll(() => bed[Symbol.asyncDispose]());

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
