import { appendFile, readdir, readFile, rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { requestEndpoint } from "../../bus/endpoint.ts";
import { ObjectStore } from "../../bus/objects.ts";
import { Server } from "../../bus/serve.ts";
import { BeamlineError } from "../../contracts/errors.ts";
import { objects } from "../../contracts/streams.ts";
import { systemIds } from "../../runtime/ids.ts";
import { until } from "../../test/kit/until.ts";
import { startTestbed, type Testbed } from "./testbed.ts";
import type { Json } from "./tool.ts";

let bed: Testbed;

beforeAll(async () => {
  bed = await startTestbed();
}, 60_000);
afterAll(() => bed[Symbol.asyncDispose]());

const at = (...names: string[]): string => join(bed.root, ...names);
const says = (text: string): unknown => expect.stringContaining(text);

describe("rollback", () => {
  test("refuses what is unknown, cannot be undone, changed since, or was done before; a reason can force", async () => {
    expect(await bed.rpc("rollback", { execution_id: "nope" })).toMatchObject({
      error: says("there is no execution nope"),
    });
    await writeFile(at("x"), "x");
    const read = await bed.run("fs.read", { path: at("x") });
    expect(await bed.rpc("rollback", { execution_id: read.execution_id })).toMatchObject({
      error: says("there is no execution"),
    });
    await writeFile(at("shared"), "before");
    const written = await bed.run("fs.write", { path: at("shared"), content: "after" });
    await appendFile(at("shared"), "+ by someone else");
    const refused = await bed.rpc("rollback", { execution_id: written.execution_id, reason: "undo" });
    expect(refused).toMatchObject({ error: says("has changed since") });
    expect(await readFile(at("shared"), "utf8")).toBe("after+ by someone else");
    expect(await bed.rpc("rollback", { execution_id: written.execution_id, reason: "force: I know" })).toMatchObject({
      success: true,
    });
    expect(await readFile(at("shared"), "utf8")).toBe("before");
  });

  test("a damaged backup is noticed before anything is touched", async () => {
    await writeFile(at("precious"), "before");
    const written = await bed.run("fs.write", { path: at("precious"), content: "after" });
    const known = await bed.executions.find("default", written.execution_id);
    const [step] = known?.execution.steps ?? [];
    if (step?.op !== "put_back" || step.before.kind !== "file") throw new Error("there is no backup");
    const store = await ObjectStore.open(bed.bus, objects.toolBackups);
    await store.put(step.before.object, Buffer.from("tampered"));
    expect(await bed.rpc("rollback", { execution_id: written.execution_id })).toMatchObject({ error: says("damaged") });
    expect(await readFile(at("precious"), "utf8")).toBe("after");
    await store.put(step.before.object, Buffer.from("before"));
    expect(await bed.rpc("rollback", { execution_id: written.execution_id })).toMatchObject({ success: true });
    expect(await readFile(at("precious"), "utf8")).toBe("before");
  });

  test("is done on the host the tool ran on, whichever worker is asked", async () => {
    const elsewhere = await bed.startWorker({ BEAMLINE_TOOLS_NODE: "other.host" });
    const written = await until(async () => {
      const answer = await bed.run(
        "fs.write",
        { path: at("there", "f"), content: "x" },
        { reason: "find the other host" },
      );
      const found = await bed.executions.find("default", answer.execution_id);
      return found?.execution.node === "other.host" ? answer : undefined;
    });
    for (let n = 0; n < 4; n++) {
      const { success, error } = await bed.rpc<{ success?: boolean; error?: string }>("rollback", {
        execution_id: written.execution_id,
        reason: "force: n",
      });
      expect(n === 0 ? success === true : error?.includes("rolled back before")).toBe(true);
    }
    const last = await bed.run("fs.write", { path: at("there", "g"), content: "x" });
    await elsewhere.close();
    const found = await bed.executions.find("default", last.execution_id);
    const undone = await bed.rpc<{ error?: string }>("rollback", { execution_id: last.execution_id });
    expect(undone.error ?? "").toMatch(found?.execution.node === "other.host" ? /where no tools worker serves/ : /^$/);
  });

  test("a host that breaks off in the middle is told of as such, and ends no rollback of a task", async () => {
    const here = await bed.run("fs.write", { path: at("here"), content: "x" }, { task: "broken off" });
    const known = await bed.executions.find("default", here.execution_id);
    if (known === undefined) throw new Error("nothing was recorded");
    const elsewhere = { ...known.execution, execution_id: systemIds.v4(), node: "far", started_at: Date.now() };
    await bed.executions.start(elsewhere);
    const subject = "beamline.tools.v1.node.far.rollback";
    const breaksOff = (): Promise<string> => Promise.reject(new BeamlineError("unavailable", "it is shutting down"));
    const endpoint = requestEndpoint({ subject, dialect: "aios", timeoutMs: 10_000 }, breaksOff);
    const server = new Server(await bed.nats.connect("far"), [endpoint], { name: "far", version: "1" });
    await server.ready();
    const said = { success: false, error: says("which did not say what came of undoing it: it is shutting down") };
    expect(await bed.rpc("rollback", { execution_id: elsewhere.execution_id })).toMatchObject({ error: said.error });
    const request = { task_id: "broken off" };
    expect(await bed.caller.request("beamline.tools.v1.rollback_task", request, { timeoutMs: 20_000 })).toMatchObject({
      steps: [said, { execution_id: here.execution_id, success: true }],
    });
    await server.stop(Date.now());
    expect(await bed.rpc("rollback", { execution_id: elsewhere.execution_id })).toMatchObject({
      error: says("where no tools worker serves"),
    });
  });

  test("many at once, over two workers, undo once", async () => {
    const another = await bed.startWorker();
    for (let n = 0; n < 25; n++) {
      const { execution_id } = await bed.run("fs.write", { path: at(`once${n}`), content: "x" });
      const answers = await Promise.all(Array.from({ length: 8 }, () => bed.rpc("rollback", { execution_id })));
      expect(answers.filter((answer) => answer["success"] === true).length).toBe(1);
      for (const { success, error } of answers)
        if (success !== true) expect(error).toMatch(/rolled back before|being rolled back/);
    }
    await another.close();
  });

  test("one that was interrupted half way is finished by force, once it cannot be under way any more", async () => {
    const interrupted = async (secondsAgo: number): Promise<string> => {
      const task = `interrupted ${secondsAgo}`;
      await writeFile(at("moved"), "m");
      await bed.run("fs.move", { source: at("moved"), destination: at("to", "moved") }, { task });
      const [known] = await bed.executions.ofTask("default", task);
      if (known === undefined) throw new Error("there is no execution");
      await bed.executions.change(known, { state: "undoing" }, Date.now() - secondsAgo * 1_000);
      await rename(at("to", "moved"), at("moved")); // the step that was done before its worker died
      return known.execution.execution_id;
    };
    const early = await interrupted(10);
    for (const reason of ["undo", "force: now"])
      expect(await bed.rpc("rollback", { execution_id: early, reason })).toMatchObject({
        error: says('120 seconds after it began a reason beginning with "force:"'),
      });
    expect(await readdir(at("to"))).toEqual([]);
    const late = await interrupted(130);
    expect(await bed.rpc("rollback", { execution_id: late, reason: "undo" })).toMatchObject({ error: says("force:") });
    expect(await bed.rpc("rollback", { execution_id: late, reason: "force: its worker died" })).toEqual({
      success: true,
    });
    expect(await readFile(at("moved"), "utf8")).toBe("m");
    expect(await bed.rpc("rollback", { execution_id: late, reason: "force: again" })).toMatchObject({
      error: says("rolled back before"),
    });
  });

  test("passes the gates again", async () => {
    await bed.run("sec.grant", { agent_id: "temp", capabilities: ["fs_write"] });
    const written = await bed.run("fs.write", { path: at("temp"), content: "x" }, { agent: "temp" });
    await bed.run("sec.revoke", { agent_id: "temp", revoke_all: true });
    expect(await bed.rpc("rollback", { execution_id: written.execution_id })).toMatchObject({
      error: says("Capability denied"),
    });
  });

  test("a whole task, last things first, each step told", async () => {
    await writeFile(at("t1"), "1");
    for (const content of ["2", "3", "4"]) await bed.run("fs.write", { path: at("t1"), content }, { task: "whole" });
    await bed.run("fs.delete", { path: at("t1") }, { task: "whole" });
    const reply = await bed.caller.request(
      "beamline.tools.v1.rollback_task",
      { task_id: "whole", reason: "all of it" },
      { timeoutMs: 10_000 },
    );
    expect(reply).toMatchObject({
      success: true,
      steps: [{ tool_name: "fs.delete" }, { tool_name: "fs.write" }, {}, {}],
    });
    expect(await readFile(at("t1"), "utf8")).toBe("1");
  });

  test("a task of more steps than an agent may do at once is undone whole, and what changed nothing counts as undone", async () => {
    await using strict = await startTestbed({ BEAMLINE_TOOLS_AGENT_RATE: "50", BEAMLINE_TOOLS_AGENT_BURST: "8" });
    const task = "long";
    const run = async (tool: string, input: Json): Promise<void> => {
      const { error } = await until(async () => {
        const answer = await strict.run(tool, input, { task });
        return answer.error === "Rate limit exceeded" ? undefined : answer;
      }, "a token");
      expect(error).toBe("");
    };
    for (let n = 0; n < 24; n++) await run("fs.write", { path: join(strict.root, `f${n}`), content: "x" });
    await run("fs.mkdir", { path: strict.root, recursive: true });
    const request = { task_id: task, reason: "all of it" };
    const reply = await strict.caller.request("beamline.tools.v1.rollback_task", request, { timeoutMs: 30_000 });
    const { success, steps } = reply as { success: boolean; steps: { success: boolean; error: string }[] };
    expect(steps.filter((step) => !step.success)).toEqual([]);
    expect({ success, count: steps.length }).toEqual({ success: true, count: 25 });
    expect((await readdir(strict.root)).filter((name) => name.startsWith("f"))).toEqual([]);
    const again = await strict.caller.request("beamline.tools.v1.rollback_task", request, { timeoutMs: 30_000 });
    expect(again).toEqual({ success: true, steps: [] });
  });
});
