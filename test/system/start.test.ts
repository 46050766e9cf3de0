/** How a process ends that cannot start: 78 and the setting's name when its configuration is wrong, 1 when trying again may help. */
import { execFile } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type AddressInfo, type Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, test } from "vitest";
import { startTestNats, type TestNats } from "../kit/servers.ts";
import { verifies } from "../kit/verifies.ts";

const folder = mkdtempSync(join(tmpdir(), "beamline-start-"));
const file = (name: string, text: string): string => {
  writeFileSync(join(folder, name), text);
  return join(folder, name);
};
const nonsense = file("nonsense", "nonsense");
const noList = file("keys.json", "{}");
const noKeys = file("none.json", "[]");

let nats: TestNats;
let taken: Server;
beforeAll(async () => {
  nats = await startTestNats({ syncInterval: "1m" });
  taken = createServer();
  await new Promise<void>((resolve) => taken.listen(0, "127.0.0.1", resolve));
}, 60_000);
afterAll(async () => {
  taken?.close();
  await nats?.stop();
  rmSync(folder, { recursive: true, force: true });
});

const NOWHERE = "nats://127.0.0.1:1";
/** Of no machine (TEST-NET-1, RFC 5737). */
const ELSEWHERE = "192.0.2.1:0";
const takenAddress = (): string => `127.0.0.1:${(taken.address() as AddressInfo).port}`;

interface Ended {
  readonly code: unknown;
  readonly stderr: string;
}

/** Runs a command that must end by itself. */
function start(args: readonly string[], env: Readonly<Record<string, string>>): Promise<Ended> {
  const user = nats.credentials[args[0] === "edge" ? "edge" : "worker"];
  const environment = {
    PATH: process.env["PATH"],
    BEAMLINE_LOG_LEVEL: "silent",
    BEAMLINE_DATA_DIR: join(folder, "data"),
    BEAMLINE_GRPC_ADDR: "127.0.0.1:0",
    BEAMLINE_HTTP_ADDR: "127.0.0.1:0",
    NATS_URL: nats.server.url,
    NATS_USER: args[0] === "edge" ? "edge" : "worker",
    NATS_PASSWORD: user.password,
    NATS_INBOX_PREFIX: user.inboxPrefix,
    ...env,
  };
  const cli = fileURLToPath(new URL("../../cli/beamline.ts", import.meta.url));
  return new Promise((resolve) => {
    execFile(process.execPath, [cli, ...args], { env: environment, timeout: 60_000 }, (error, _stdout, stderr) =>
      resolve({ code: error?.code ?? 0, stderr }),
    );
  });
}

/** The bus is nowhere: a mistake that can be seen without it is seen before it is looked for. */
const unopened = { NATS_URL: NOWHERE };
const tls = { BEAMLINE_GRPC_TLS_CERT: nonsense, BEAMLINE_GRPC_TLS_KEY: nonsense };

verifies(
  "clear-failure",
  "a wrong setting ends the process with 78 and names it",
  async () => {
    const mistakes: readonly (readonly [string, readonly string[], Readonly<Record<string, string>>])[] = [
      ["BEAMLINE_GRPC_ADDR", ["edge"], { ...unopened, BEAMLINE_GRPC_ADDR: "0.0.0.0:0" }],
      [
        "BEAMLINE_HTTP_ADDR",
        ["edge"],
        { ...unopened, BEAMLINE_HTTP_ADDR: "0.0.0.0:0", BEAMLINE_API_KEYS_FILE: noKeys },
      ],
      ["BEAMLINE_API_KEYS_FILE", ["edge"], { ...unopened, BEAMLINE_API_KEYS_FILE: noList }],
      ["BEAMLINE_API_KEYS_FILE", ["edge"], { ...unopened, BEAMLINE_API_KEYS_FILE: nonsense }],
      ["BEAMLINE_GRPC_TLS_CERT", ["edge"], { ...unopened, ...tls }],
      ["BEAMLINE_GRPC_TLS_CERT", ["edge"], { ...unopened, ...tls, BEAMLINE_GRPC_TLS_CERT: join(folder, "missing") }],
      ["BEAMLINE_GRPC_ADDR", ["edge"], { BEAMLINE_GRPC_ADDR: ELSEWHERE, BEAMLINE_ALLOW_ANONYMOUS: "true" }],
      ["BEAMLINE_HTTP_ADDR", ["edge"], { BEAMLINE_HTTP_ADDR: ELSEWHERE, BEAMLINE_ALLOW_ANONYMOUS: "true" }],
      ["BEAMLINE_WORKER_HTTP_ADDR", ["worker", "routing"], { ...unopened, BEAMLINE_WORKER_HTTP_ADDR: ELSEWHERE }],
      ["NATS_CREDS", ["worker", "routing"], { ...unopened, NATS_CREDS: nonsense }],
      ["NATS_NKEY", ["worker", "routing"], { ...unopened, NATS_NKEY: nonsense }],
      ["BEAMLINE_EXEC_SUBJECTS", ["worker", "usage"], { ...unopened, BEAMLINE_EXEC_SUBJECTS: "caf.>" }],
      ["BEAMLINE_ROUTER_TENANT_LIMITS", ["worker", "routing"], { ...unopened, BEAMLINE_ROUTER_TENANT_LIMITS: "acme" }],
      ["BEAMLINE_GRPC_TLS_CERT", ["up"], tls],
      ["BEAMLINE_API_KEYS_FILE", ["up"], { BEAMLINE_API_KEYS_FILE: noList }],
      ["NATS_URL", ["decide", "{}"], { NATS_URL: "ftp://nowhere" }],
    ];
    for (const [setting, args, env] of mistakes) {
      const { code, stderr } = await start(args, env);
      expect([code, stderr], `${args.join(" ")} ${JSON.stringify(env)}`).toEqual([
        78,
        expect.stringContaining(setting),
      ]);
      expect(stderr.split("\n").filter((line) => line.includes(setting)).length, stderr).toBe(1);
      expect(stderr).not.toContain("    at ");
    }
  },
  { timeout: 180_000 },
);

test("what may be right the next time ends it with 1: no bus, an address in use", { timeout: 120_000 }, async () => {
  expect(await start(["edge"], unopened)).toMatchObject({
    code: 1,
    stderr: expect.stringContaining(NOWHERE) as string,
  });
  expect(await start(["worker", "routing"], unopened)).toMatchObject({ code: 1 });
  for (const setting of ["BEAMLINE_GRPC_ADDR", "BEAMLINE_HTTP_ADDR"]) {
    const { code, stderr } = await start(["edge"], { [setting]: takenAddress() });
    expect([code, stderr]).toEqual([1, expect.stringMatching(`${setting}: .*${takenAddress()}.*EADDRINUSE`)]);
  }
});
