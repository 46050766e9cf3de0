/** Workers die, runs do not: kill -9 again and again while hundreds of runs make effects outside. */
import { spawn, type ChildProcess } from "node:child_process";
import { createServer } from "node:http";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect } from "vitest";
import { Caller } from "../../bus/call.ts";
import { header } from "../../contracts/headers.ts";
import { TERMINAL_EVENTS } from "../../contracts/openwop/log.ts";
import { startServers } from "../../deploy/local/servers.ts";
import { Bus } from "../../bus/connect.ts";
import { readLog } from "../../edge/openwop/log.ts";
import { createSeededRandom } from "../../runtime/ids.ts";
import { until } from "../kit/until.ts";
import { verifies } from "../kit/verifies.ts";

const RUNS = Number(process.env["CHAOS_RUNS"] ?? 200);
const KILLS = 6;
const seed = Number(process.env["CHAOS_SEED"] ?? Math.floor(Math.random() * 2 ** 31));

const step = (id: string, typeId: string, config: object): object => ({
  id,
  typeId,
  name: id,
  position: { x: 0, y: 0 },
  config,
  inputs: {},
});

const headers = { [header.tenantId]: "acme", [header.principal]: "tester", [header.scopes]: "*" };

verifies(
  "crash-safe",
  `killed workers lose no run and repeat no effect (seed ${seed})`,
  async () => {
    const random = createSeededRandom(seed);
    const dataDir = await mkdtemp(join(tmpdir(), "beamline-chaos-"));
    const servers = await startServers({ dataDir, ports: "free" });
    const calls = new Map<string, number>();
    const receiver = createServer((request, response) => {
      // A receiver that honours idempotency keys: the effect is the first request of a key.
      const key = String(request.headers["idempotency-key"]);
      calls.set(key, (calls.get(key) ?? 0) + 1);
      setTimeout(
        () => response.writeHead(200, { "content-type": "application/json" }).end('{"ok":true}'),
        random.float() * 40,
      );
    });
    await new Promise<void>((resolve) => receiver.listen(0, "127.0.0.1", resolve));
    const { port } = receiver.address() as { port: number };
    const { user, password, inboxPrefix } = servers.credentials.worker;
    const start = async (): Promise<ChildProcess> => {
      const child = spawn(process.execPath, [fileURLToPath(new URL("worker.process.ts", import.meta.url))], {
        env: {
          PATH: process.env["PATH"],
          ...servers.env,
          NATS_USER: user,
          NATS_PASSWORD: password,
          NATS_INBOX_PREFIX: inboxPrefix,
          OPENWOP_LEASE_MS: "1000",
          OPENWOP_FIXTURES: "true",
          OPENWOP_EGRESS_ALLOW: "127.0.0.1",
        },
        stdio: ["ignore", "ignore", "inherit", "ipc"],
      });
      await new Promise<void>((resolve) => child.once("message", () => resolve()));
      return child;
    };
    const workers = await Promise.all([start(), start()]);
    const bus = await Bus.connect({ url: servers.nats.url, name: "test", ...servers.credentials.operator });
    const caller = new Caller(bus);
    let asked = 0;
    const ask = (operation: string, body: object, params: object = {}): Promise<{ body: Record<string, unknown> }> => {
      // One key for all tries: a call whose worker died is asked again, and happens once.
      const keyed = { ...headers, [header.idempotencyKey]: `${operation}-${asked++}` };
      const subject = `openwop.rest.v1.${operation}`;
      return until(
        () => caller.request(subject, { body, params }, { headers: keyed, timeoutMs: 3_000 }) as Promise<never>,
        operation,
        40_000,
      );
    };
    try {
      await ask("apply_workflow", workflowTo(port), { workflowId: "chaos" });
      const ids: string[] = [];
      const creating = (async () => {
        for (let at = 0; at < RUNS; at++)
          ids.push(String((await ask("create_run", { workflowId: "chaos" })).body["runId"]));
      })();
      for (let kill = 0; kill < KILLS; kill++) {
        await until(() => ids.length >= ((kill + 1) * RUNS) / (KILLS + 2), "runs to be under way", 60_000);
        const at = Math.floor(random.float() * workers.length);
        const gone = new Promise((resolve) => workers[at]?.once("exit", resolve));
        workers[at]?.kill("SIGKILL");
        await gone;
        workers[at] = await start();
      }
      await creating;
      expect(new Set(ids).size).toBe(RUNS);
      for (const runId of ids) {
        const events = await until(
          async () => {
            const all = (await readLog(bus, "acme", runId, 1)).entries.flatMap((entry) => entry.events);
            return all.some(({ type }) => TERMINAL_EVENTS.has(type)) && all;
          },
          `run ${runId} to end`,
          40_000,
        );
        expect(events.map(({ sequence }) => sequence)).toEqual(events.map((_, index) => index));
        expect(events.filter(({ type }) => TERMINAL_EVENTS.has(type)).map(({ type }) => type)).toEqual([
          "run.completed",
        ]);
        expect(TERMINAL_EVENTS.has(events.at(-1)?.type ?? "")).toBe(true);
      }
      expect(calls.size).toBe(RUNS);
    } finally {
      caller.stop();
      await bus.close();
      for (const worker of workers) worker.kill("SIGKILL");
      await servers.stop();
      receiver.close();
      await rm(dataDir, { recursive: true, force: true });
    }
  },
  { timeout: 150_000 },
);

function workflowTo(port: number): object {
  return {
    id: "chaos",
    name: "chaos",
    version: "1",
    nodes: [
      step("before", "core.noop", {}),
      step("effect", "core.http", {
        url: `http://127.0.0.1:${port}/effect`,
        method: "POST",
        body: { n: 1 },
        idempotent: true,
      }),
      step("after", "core.noop", {}),
    ],
    edges: [
      { id: "1", sourceNodeId: "before", targetNodeId: "effect" },
      { id: "2", sourceNodeId: "effect", targetNodeId: "after" },
    ],
    triggers: [],
    variables: [],
    metadata: {},
    settings: { maxRetries: 3 },
  };
}
