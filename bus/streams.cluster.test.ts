import { mkdtempDisposable } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { streams } from "../contracts/streams.ts";
import { loadCredentials } from "../deploy/local/credentials.ts";
import { startCluster } from "../test/kit/cluster.ts";
import { until } from "../test/kit/until.ts";
import { Bus } from "./connect.ts";
import { ensureStreams } from "./streams.ts";

test(
  "T4: asked for while too few servers of the cluster are there, a stream is made once they are",
  { timeout: 120_000 },
  async () => {
    await using directory = await mkdtempDisposable(join(tmpdir(), "beamline-cluster-"));
    await using cluster = await startCluster(directory.path);
    await Promise.all(cluster.nodes.map((node) => node.kill()));
    const [first, ...others] = cluster.nodes;
    await first?.start();
    const { operator } = loadCredentials(directory.path);
    const bus = await Bus.connect({ url: cluster.url, name: "test", ...operator });
    try {
      let asked = 0;
      bus.nc.subscribe("$JS.API.STREAM.INFO.LATER", { callback: () => void asked++ });
      const spec = { ...streams.deadLetters, name: "LATER", subjects: ["later.>"] };
      const made = ensureStreams(bus, [spec], { replicas: 3 });
      await until(() => asked > 1, "another try", 20_000);
      await Promise.all(others.map((node) => node.start()));
      expect(await made).toMatchObject([{ stream: "LATER", outcome: "created" }]);
    } finally {
      await bus.close();
    }
  },
);
