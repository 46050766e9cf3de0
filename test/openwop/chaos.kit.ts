/** What the chaos test strikes at: servers, workers and an edge as processes, a receiver of effects, and a client that tries again. */
import { spawn, type ChildProcess } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { EngineDefinition, type RunEventEnvelope } from "../../contracts/gen/openwop/v1/openwop.ts";
import { freePort } from "../../deploy/local/ports.ts";
import { startServers } from "../../deploy/local/servers.ts";
import { sha256, type StoredKey } from "../../edge/auth.ts";
import type { Random } from "../../runtime/ids.ts";
import { grpcClient, type GrpcClient } from "../kit/grpc.ts";
import { until } from "../kit/until.ts";

const KEY = "hk_test_chaos";
const PATIENCE_MS = 60_000;
const metadata = { authorization: `Bearer ${KEY}` };

export type Target = "worker" | "edge" | "nats";

export interface Chaos extends AsyncDisposable {
  /** Requests per idempotency key: the effect is the first of them. */
  readonly effects: ReadonlyMap<string, number>;
  /** kill -9, and up again. */
  readonly strike: (target: Target) => Promise<void>;
  /** A REST call, tried until it is answered; 4xx are thrown. One idempotency key for all tries. */
  readonly rest: (method: string, path: string, body?: object) => Promise<Record<string, unknown>>;
  /** Creates a run over gRPC, tried until it is answered. Its id. */
  readonly create: (workflowId: string) => Promise<string>;
  /** All events of a run over gRPC, followed to the end across whatever happens meanwhile. */
  readonly follow: (runId: string) => Promise<RunEventEnvelope[]>;
}

export async function startChaos(random: Random, workers: number): Promise<Chaos> {
  const dataDir = await mkdtemp(join(tmpdir(), "beamline-chaos-"));
  const servers = await startServers({ dataDir, ports: "free" });
  const [grpcAddr, httpAddr] = [`127.0.0.1:${await freePort()}`, `127.0.0.1:${await freePort()}`];
  const keysFile = join(dataDir, "keys.json");
  const keys: StoredKey[] = [{ id: "tester", sha256: sha256(KEY), tenant: "acme", scopes: ["*"] }];
  await writeFile(keysFile, JSON.stringify(keys));
  const login = (user: "edge" | "worker"): Record<string, string | undefined> => ({
    PATH: process.env["PATH"],
    ...servers.env,
    NATS_USER: servers.credentials[user].user,
    NATS_PASSWORD: servers.credentials[user].password,
    NATS_INBOX_PREFIX: servers.credentials[user].inboxPrefix,
  });
  const startWorker = (): Promise<ChildProcess> =>
    started(fileURLToPath(new URL("worker.process.ts", import.meta.url)), [], {
      ...login("worker"),
      OPENWOP_LEASE_MS: "1000",
      OPENWOP_FIXTURES: "true",
      OPENWOP_EGRESS_ALLOW: "127.0.0.1",
    });
  const startEdge = (): Promise<ChildProcess> =>
    started(fileURLToPath(new URL("../../cli/beamline.ts", import.meta.url)), ["edge"], {
      ...login("edge"),
      BEAMLINE_GRPC_ADDR: grpcAddr,
      BEAMLINE_HTTP_ADDR: httpAddr,
      BEAMLINE_API_KEYS_FILE: keysFile,
      BEAMLINE_LOG_LEVEL: "error",
    });
  const receiver = await startReceiver(random);
  const { effects, port } = receiver;
  const running = await Promise.all(Array.from({ length: workers }, startWorker));
  let edge = await startEdge();
  let client = grpcClient(EngineDefinition, grpcAddr);
  /** A channel that has met a dead edge waits longer and longer; a new one does not. */
  const anew = (broken: GrpcClient<typeof EngineDefinition>): void => {
    if (client !== broken) return;
    broken[Symbol.dispose]();
    client = grpcClient(EngineDefinition, grpcAddr);
  };
  let calls = 0;
  const rest: Chaos["rest"] = async (method, path, body) => {
    const own = `${method}-${calls++}`;
    const answer = await until(
      async () => {
        const response = await fetch(`http://${httpAddr}${path}`, {
          method,
          headers: { ...metadata, "idempotency-key": own, "content-type": "application/json" },
          ...(body !== undefined && { body: JSON.stringify(body).replaceAll(":receiver", `:${port}`) }),
          signal: AbortSignal.timeout(5_000),
        });
        const told = (await response.json()) as Record<string, unknown>;
        const passing = response.status >= 500 || told["error"] === "idempotency_in_flight";
        if (passing) throw new Error(JSON.stringify(told));
        return { status: response.status, told };
      },
      `${method} ${path}`,
      PATIENCE_MS,
    );
    if (answer.status >= 400) throw new Error(`${method} ${path}: ${JSON.stringify(answer.told)}`);
    return answer.told;
  };
  return {
    effects,
    rest,
    async create(workflowId) {
      const idempotency_key = `create-${calls++}`;
      return until(
        async () => {
          const used = client;
          try {
            const request = { workflow_id: workflowId, idempotency_key };
            return (await used.call("createRun", request, { metadata, timeoutMs: 5_000 })).run_id;
          } catch (thrown) {
            anew(used);
            throw thrown;
          }
        },
        "createRun",
        PATIENCE_MS,
      );
    },
    async follow(runId) {
      const events: RunEventEnvelope[] = [];
      return until(
        async () => {
          const used = client;
          const request = { run_id: runId, last_sequence: BigInt(events.length - 1), stream_modes: ["debug"] };
          try {
            for await (const event of used.stream("streamRunEvents", request, { metadata, timeoutMs: PATIENCE_MS }))
              events.push(event);
            return events;
          } catch (thrown) {
            anew(used);
            throw thrown;
          }
        },
        `the stream of ${runId}`,
        PATIENCE_MS,
      );
    },
    async strike(target) {
      if (target === "nats") {
        await servers.nats.kill();
        return servers.nats.restart();
      }
      const at = Math.floor(random.float() * running.length);
      const victim = target === "edge" ? edge : running[at];
      if (victim !== undefined) await killed(victim);
      if (target === "edge") edge = await startEdge();
      else running[at] = await startWorker();
    },
    async [Symbol.asyncDispose]() {
      client[Symbol.dispose]();
      await Promise.all([edge, ...running].map(killed));
      await servers.stop();
      receiver.close();
      await rm(dataDir, { recursive: true, force: true });
    },
  };
}

/** As a supervisor does: a process that cannot start because its servers are not up again yet is started once more. */
async function started(
  file: string,
  args: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
): Promise<ChildProcess> {
  return until(
    async () => {
      const child = spawn(process.execPath, [file, ...args], { env, stdio: ["ignore", "ignore", "ignore", "ipc"] });
      await new Promise<void>((resolve, reject) => {
        child.once("message", () => resolve());
        child.once("exit", (code) => reject(new Error(`${file} ended with ${code} before it was ready`)));
      });
      return child;
    },
    `${file} to start`,
    PATIENCE_MS,
  );
}

async function killed(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const gone = new Promise((resolve) => child.once("exit", resolve));
  child.kill("SIGKILL");
  await gone;
}

/** Honours idempotency keys, as a good receiver does; now and then the answer is lost on its way. */
async function startReceiver(
  random: Random,
): Promise<{ effects: ReadonlyMap<string, number>; port: number; close(): void }> {
  const effects = new Map<string, number>();
  const receiver = createServer((request, response) => {
    const key = String(request.headers["idempotency-key"]);
    effects.set(key, (effects.get(key) ?? 0) + 1);
    const lost = random.float() < 0.03;
    setTimeout(() => {
      if (lost) request.socket.destroy();
      else response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify({ key }));
    }, random.float() * 40);
  });
  await new Promise<void>((resolve) => receiver.listen(0, "127.0.0.1", resolve));
  return {
    effects,
    port: (receiver.address() as AddressInfo).port,
    close: () => {
      receiver.closeAllConnections();
      receiver.close();
    },
  };
}
