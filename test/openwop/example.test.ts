/** The worked example of docs/, on the real workers: memory, model, a person, a tool. */
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { Caller } from "../../bus/call.ts";
import { header } from "../../contracts/headers.ts";
import { startWorld } from "../kit/world.ts";
import { until } from "../kit/until.ts";

const headers = { [header.tenantId]: "acme", [header.principal]: "tester", [header.scopes]: "*" };

test("research → draft → approval → publish", { timeout: 90_000 }, async () => {
  const root = await mkdtemp(join(tmpdir(), "beamline-example-"));
  await using world = await startWorld({
    workers: ["runs", "memory", "tools", "inference"],
    syncInterval: "10s",
    env: { BEAMLINE_TOOLS_ROOTS: root },
  });
  const caller = new Caller(await world.connect("operator"));
  const ask = async (operation: string, params: object, body?: object): Promise<Record<string, unknown>> => {
    const reply = await caller.request(
      `openwop.rest.v1.${operation}`,
      { params, body },
      { headers, timeoutMs: 15_000 },
    );
    return (reply as { body: Record<string, unknown> }).body;
  };
  const text = await readFile(new URL("../../docs/example-research.json", import.meta.url), "utf8");
  const workflow = JSON.parse(text.replace("notes/{{run.id}}.md", join(root, "{{run.id}}.md"))) as object;
  await ask("apply_workflow", { workflowId: "research" }, workflow);
  const outcome = async (action: string): Promise<Record<string, unknown>> => {
    const { runId } = await ask("create_run", {}, { workflowId: "research", inputs: { topic: "durable timers" } });
    await until(
      async () => {
        const run = await ask("get_run", { runId });
        if (run["status"] === "failed") throw new Error(JSON.stringify(run["error"]));
        return run["status"] === "waiting-approval";
      },
      "the review",
      30_000,
    );
    await ask("resolve_interrupt", { runId, nodeId: "review" }, { resumeValue: { action } });
    return until(async () => {
      const run = await ask("get_run", { runId });
      if (run["status"] === "failed") throw new Error(JSON.stringify(run));
      return run["status"] === "completed" && run;
    }, "the end");
  };
  const accepted = await outcome("accept");
  expect(await readdir(root)).toEqual([`${String(accepted["runId"])}.md`]);
  const rejected = await outcome("reject");
  const artifact = await ask("get_artifact", { runId: rejected["runId"], artifactId: "draft" });
  expect(artifact).toMatchObject({ contentType: "text/markdown", encoding: "utf-8" });
  expect(await readdir(root)).toHaveLength(1);
  caller.stop();
  await rm(root, { recursive: true, force: true });
});
