/** Reads after an acknowledged write see it: a workflow that was applied is the one that is read and started, whichever worker is asked. */
import { afterAll, beforeAll, expect, test } from "vitest";
import { startHost, type Host } from "./host.ts";
import { node, workflow } from "./workflow.kit.ts";

let host: Host;
beforeAll(async () => {
  host = await startHost({}, 3);
}, 60_000);
afterAll(async () => host[Symbol.asyncDispose]());

test("version after version", async () => {
  for (let round = 1; round <= 15; round++) {
    const version = `1.0.${round}`;
    const applied = await host.rest("PUT", "/v1/workflows/moving", workflow("moving", [node("a")], { version }));
    expect([applied.status, applied.body.version]).toEqual([201, version]);
    const read = Array.from({ length: 6 }, async () => (await host.rest("GET", "/v1/workflows/moving")).body.version);
    const started = Array.from({ length: 6 }, async () => {
      const runId = await host.start("moving");
      return (await host.rest("GET", `/v1/runs/${runId}`)).body.workflowVersion;
    });
    expect(new Set(await Promise.all([...read, ...started]))).toEqual(new Set([version]));
  }
});
