/** A run whose work cannot be done ends, and says so. */
import { expect, test } from "vitest";
import { buckets, streams } from "../../contracts/streams.ts";
import { tokenOf } from "../../bus/keys.ts";
import { startHost } from "./host.ts";

test("a run whose definition is gone is dead-lettered, and its log ends", { timeout: 60_000 }, async () => {
  await using host = await startHost();
  const held = await host.start("conformance-approval");
  await host.reaches(held, "waiting-approval");
  const { definition } = JSON.parse(
    (
      await host.bed.bus.jsm.direct.getMessage(streams.runs.name, {
        last_by_subj: `log.runs.acme.${tokenOf(held)}.wake`,
      })
    )?.string() ?? "{}",
  ).run as { definition: string };
  // A worker that has never seen the definition, after it is gone from the bus.
  await host.bed.bus.jsm.streams.purge(`KV_${buckets.workflowVersions.name}`, {
    filter: `$KV.${buckets.workflowVersions.name}.${definition}`,
  });
  await host.bed.restart();
  await host.rest("POST", `/v1/runs/${held}/interrupts/gate`, { resumeValue: { action: "accept" } });
  await host.reaches(held, "failed");
  const events = await host.events(held);
  expect(
    events
      .slice(-2)
      .map(({ type }) => type)
      .includes("run.failed"),
  ).toBe(true);
  expect(events.find(({ type }) => type === "run.dead_lettered")?.payload).toMatchObject({
    runId: held,
    attempts: expect.any(Number),
  });
});
