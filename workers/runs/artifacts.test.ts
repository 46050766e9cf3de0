/** Files of runs on a real server. */
import { afterAll, beforeAll, expect } from "vitest";
import type { Bus } from "../../bus/connect.ts";
import { ObjectStore } from "../../bus/objects.ts";
import { ensureObjects } from "../../bus/streams.ts";
import { objects } from "../../contracts/streams.ts";
import { startTestNats, type TestNats } from "../../test/kit/servers.ts";
import { until } from "../../test/kit/until.ts";
import { verifies } from "../../test/kit/verifies.ts";
import { Artifacts } from "./artifacts.ts";

let nats: TestNats;
let bus: Bus;
beforeAll(async () => {
  nats = await startTestNats();
  bus = await nats.connect("worker-runs");
  await ensureObjects(bus, [objects.runArtifacts]);
}, 60_000);
afterAll(() => nats?.stop());

verifies(
  "crash-safe",
  "a file whose store was away when it was to be stored is there once it is back",
  async () => {
    const artifacts = new Artifacts(bus, await ObjectStore.open(bus, objects.runArtifacts));
    const file = { artifactId: "a", contentType: "text/plain", content: Buffer.from("kept") };
    await nats.server.kill();
    await until(() => !bus.connected, "the loss of the connection");
    const stored = artifacts.put("acme", "run", "node", file, "document");
    const given = { artifactId: "a", artifactType: "document", nodeId: "node" };
    await Promise.all([
      expect(stored).resolves.toMatchObject({ type: "artifact.created", payload: given }),
      // Longer than one try takes to give up.
      artifacts.get("acme", "run", "a").catch(async ({ code }: { code?: string }) => {
        await nats.server.restart();
        expect(code).toBe("unavailable");
      }),
    ]);
    expect(Buffer.from((await artifacts.get("acme", "run", "a")).content).toString()).toBe("kept");
  },
  { timeout: 60_000 },
);
