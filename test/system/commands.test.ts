/** `npm start` as a newcomer runs it: it comes up, answers, and leaves nothing behind. CI runs both commands in a bare clone. */
import { execFile, spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, test } from "vitest";
import { RouterDefinition } from "../../contracts/gen/beamline/flow/v1/flow.ts";
import { grpcClient } from "../kit/grpc.ts";
import { until } from "../kit/until.ts";
import { verifies } from "../kit/verifies.ts";

const root = fileURLToPath(new URL("../..", import.meta.url));
const run = promisify(execFile);

let dataDir: string;
let start: ChildProcess | undefined;
let printed = "";

beforeAll(async () => {
  dataDir = await mkdtemp(join(tmpdir(), "beamline-start-"));
});
afterAll(async () => {
  start?.kill("SIGKILL");
  await rm(dataDir, { recursive: true, force: true });
});

const environment = (): NodeJS.ProcessEnv => ({
  ...process.env,
  BEAMLINE_DATA_DIR: dataDir,
  BEAMLINE_GRPC_ADDR: "127.0.0.1:0",
  BEAMLINE_HTTP_ADDR: "127.0.0.1:0",
});
const address = (what: string): string => new RegExp(`^${what}\\s+(?:\\w+://)?(\\S+)`, "m").exec(printed)?.[1] ?? "";

/** Processes whose command line or environment names the data directory. */
async function processes(): Promise<string[]> {
  const ids = (await readdir("/proc")).filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid);
  const texts = await Promise.all(
    ids.flatMap((id) => ["cmdline", "environ"].map((file) => readFile(`/proc/${id}/${file}`, "utf8").catch(() => ""))),
  );
  return texts.filter((text) => text.includes(dataDir));
}

verifies(
  "two-commands",
  "npm start brings everything up, and SIGTERM ends it without a process left behind",
  async () => {
    start = spawn("npm", ["start"], { cwd: root, env: environment(), stdio: ["ignore", "pipe", "inherit"] });
    const child = start;
    child.stdout?.on("data", (chunk: Buffer) => (printed += chunk.toString()));
    await until(() => printed.includes("Ctrl-C stops all of it"), "npm start to be ready", 60_000);
    for (const what of ["nats", "redis", "gRPC", "HTTP", "key"]) expect(address(what)).not.toBe("");

    using router = grpcClient(RouterDefinition, address("gRPC"));
    expect(
      await router.call("decide", {
        message: { message_id: "m1", tenant_id: "new", message_type: "chat", payload: Buffer.from("{}") },
      }),
    ).toMatchObject({ provider_id: "openai" });
    expect((await fetch(`http://${address("HTTP")}/readyz`)).status).toBe(200);
    expect(await (await fetch(`http://${address("HTTP")}/metrics`)).text()).toContain("grpc_server_handled_total");
    const doctor = await run(process.execPath, [join(root, "cli/beamline.ts"), "doctor", "--json"], {
      env: environment(),
    });
    const findings = JSON.parse(doctor.stdout) as { check: string; ok: boolean; detail: string }[];
    expect(new Set(findings.map(({ ok }) => ok)), doctor.stdout).toEqual(new Set([true]));
    expect(findings.find(({ check }) => check === "redis")?.detail).toContain(address("redis"));

    const exited = new Promise((resolve) => child.once("exit", resolve));
    child.kill("SIGTERM");
    await exited;
    await until(async () => (await processes()).length === 0, "every process to be gone", 15_000);
  },
  { timeout: 120_000 },
);

test("a wrong setting of any part is told with all others, before anything is opened", async () => {
  const child = spawn(process.execPath, [join(root, "cli/beamline.ts"), "up"], {
    env: {
      ...environment(),
      BEAMLINE_DATA_DIR: join(dataDir, "never"),
      BEAMLINE_HTTP_ADDR: "here",
      BEAMLINE_GRPC_TLS_CERT: "/nowhere.crt",
      BEAMLINE_WORKER_CONCURRENCY: "0",
      BEAMLINE_ROUTER_POLICY_QUOTA: "many",
    },
    stdio: ["ignore", "ignore", "pipe"],
  });
  let complaint = "";
  child.stderr.on("data", (chunk: Buffer) => (complaint += chunk.toString()));
  const [code] = (await once(child, "close")) as [number | null];
  expect(code).toBe(78);
  for (const name of [
    "BEAMLINE_HTTP_ADDR",
    "BEAMLINE_GRPC_TLS_CERT",
    "BEAMLINE_WORKER_CONCURRENCY",
    "BEAMLINE_ROUTER_POLICY_QUOTA",
  ])
    expect(complaint).toContain(name);
  expect(existsSync(join(dataDir, "never"))).toBe(false);
});

test("the README shows both commands and its examples name what exists", async () => {
  const readme = await readFile(join(root, "README.md"), "utf8");
  for (const text of ["npm start", "npm test", "beamline.router.v1.decide", "beamline.flow.v1.Router/Decide"])
    expect(readme).toContain(text);
});
