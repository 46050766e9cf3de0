/** `beamline policies` and `beamline extensions` as people and scripts run them: the program itself, against a running router. */
import { spawn } from "node:child_process";
import { writeFile, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { until } from "../kit/until.ts";
import { verifies } from "../kit/verifies.ts";
import { ADMIN_KEY, startWorld, type World } from "../kit/world.ts";
import { ask, request, serveExtension } from "./kit.ts";

const program = fileURLToPath(new URL("../../cli/beamline.ts", import.meta.url));

let world: World;
let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "beamline-commands-"));
  world = await startWorld({ workers: ["routing"], syncInterval: "10s" });
}, 90_000);
/** Every command is a process of its own: slow machines take seconds for one. */
vi.setConfig({ testTimeout: 180_000 });
afterAll(async () => {
  await world?.[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});

interface Ran {
  readonly code: number | null;
  readonly out: string;
  readonly errors: string;
}

interface Given {
  readonly input?: string;
  /** Environment that differs; undefined takes one away. */
  readonly env?: Readonly<Record<string, string | undefined>>;
}

async function beamline(args: readonly string[], { input = "", env = {} }: Given = {}): Promise<Ran> {
  const { password, user, inboxPrefix } = world.servers.credentials.operator;
  const child = spawn(process.execPath, [program, ...args], {
    env: {
      PATH: process.env["PATH"],
      BEAMLINE_DATA_DIR: folder,
      BEAMLINE_ROUTER_ADMIN_API_KEY: ADMIN_KEY,
      NATS_URL: world.servers.nats.url,
      NATS_USER: user,
      NATS_PASSWORD: password,
      NATS_INBOX_PREFIX: inboxPrefix,
      ...env,
    },
  });
  let [out, errors] = ["", ""];
  child.stdout.on("data", (chunk) => (out += String(chunk)));
  child.stderr.on("data", (chunk) => (errors += String(chunk)));
  child.stdin.on("error", () => undefined).end(input);
  const code = await new Promise<number | null>((resolve) => child.once("close", resolve));
  return { code, out, errors };
}

/** What a command prints with `--json`. */
async function json(...args: string[]): Promise<unknown> {
  const { code, out, errors } = await beamline(["--json", ...args]);
  expect(errors).toBe("");
  expect(code).toBe(0);
  return JSON.parse(out);
}

const document = {
  version: "1.0",
  providers: [{ name: "alpha", weight: 100 }],
  sticky: { enabled: true, session_key: "user_id", ttl: "10m" },
  fallbacks: [{ when: { status: ["timeout"] }, to: "local", retry: 1 }],
};

describe("policies", () => {
  test("put from standard input decides, is shown and listed as text and as JSON, and goes", async () => {
    const put = await beamline(["policies", "put", "split", "-", "-t", "acme"], { input: JSON.stringify(document) });
    expect(put).toMatchObject({ code: 0, out: "ok  true\n", errors: "" });
    await until(async () => (await ask(world, request("acme", "split")))["provider_id"] === "alpha", "its decision");
    expect(await json("policies", "show", "split", "-t", "acme")).toEqual({
      policy_id: "split",
      tenant_id: "acme",
      ...document,
    });
    expect(await json("policies", "list", "-t", "acme")).toEqual([
      { policy: "split", providers: "alpha:100", sticky: true, limited: false, breaker: false, extensions: 0 },
    ]);
    const listed = await beamline(["policies", "list", "-t", "acme"]);
    expect(listed.out.split("\n")[0]).toMatch(/^policy\s+providers\s+sticky\s+limited\s+breaker\s+extensions$/);
    expect(await json("policies", "delete", "split", "-t", "acme")).toEqual({ ok: true });
    expect((await beamline(["policies", "list", "-t", "acme"])).out).toBe("no policies\n");
    expect(await json("policies", "list", "-t", "acme")).toEqual([]);
  });

  test("put from a file; the tenant is default, and * is everybody", async () => {
    const file = join(folder, "shared.json");
    await writeFile(file, JSON.stringify({ weights: { beta: 1 } }));
    expect(await json("policies", "put", "own", file)).toEqual({ ok: true });
    expect(await json("policies", "list")).toMatchObject([{ policy: "own", providers: "beta:1" }]);
    expect(await json("policies", "put", "everybodys", file, "-t", "*")).toEqual({ ok: true });
    await until(async () => (await ask(world, request("someone", "everybodys")))["provider_id"] === "beta");
  });

  verifies(
    "clear-failure",
    "what is wrong is told by its field on stderr, with exit code 1, and nothing is stored",
    async () => {
      const put = ["policies", "put", "bad", "-", "-t", "careful"];
      const notThere = join(folder, "none.json");
      const wrong: [readonly string[], Given, RegExp][] = [
        [put, { input: "{oops" }, /^invalid_argument: - cannot be read as JSON/],
        [put, { input: "[1]" }, /^invalid_argument: - must hold a JSON object/],
        [["policies", "put", "bad", notThere, "-t", "careful"], {}, /none\.json cannot be read as JSON/],
        [put, { input: '{"providers":[{"name":"a","weight":101}]}' }, /policy\.providers\[0\]\.weight/],
        [put, { input: '{"providers":[]}' }, /policy\.providers/],
        [put, { input: "{}" }, /providers/],
        [put, { input: '{"weights":{"a":1},"surprise":1}' }, /policy\.surprise/],
        [["policies", "put", "a b", "-", "-t", "careful"], { input: '{"weights":{"a":1}}' }, /policy_id/],
        [["policies", "put", "p", "-", "-t", "no tenant"], { input: '{"weights":{"a":1}}' }, /tenant_id/],
        [["policies", "show", "never", "-t", "careful"], {}, /never|not found/i],
        [["policies", "delete", "never", "-t", "careful"], {}, /never|not found/i],
        [
          ["policies", "list"],
          { env: { BEAMLINE_ROUTER_ADMIN_API_KEY: undefined } },
          /^unauthenticated: .*ADMIN_API_KEY/,
        ],
        [["policies", "list"], { env: { BEAMLINE_ROUTER_ADMIN_API_KEY: "wrong-key-1" } }, /invalid API key/],
        [["policies", "put"], {}, /missing required argument/],
      ];
      for (const [args, given, text] of wrong) {
        const { code, out, errors } = await beamline(args, given);
        expect(errors, args.join(" ")).toMatch(text);
        expect(errors, args.join(" ")).not.toContain("    at ");
        expect({ code, out }, args.join(" ")).toEqual({ code: 1, out: "" });
      }
      expect(await json("policies", "list", "-t", "careful")).toEqual([]);
    },
  );
});

describe("extensions", () => {
  test("put is asked from then on, listed and measured, and goes", async () => {
    expect((await beamline(["extensions", "list", "-t", "acme"])).out).toBe("no extensions\n");
    const asked = serveExtension(await world.connect("publisher", "ext"), "beamline.ext.validate.guard.v1", () => ({
      status: "reject",
    }));
    const record = JSON.stringify({ id: "guard", type: "validator", timeout_ms: 200, retry: 1 });
    expect(await beamline(["extensions", "put", "-", "-t", "acme"], { input: record })).toMatchObject({ code: 0 });
    expect(await json("extensions", "list", "-t", "acme")).toEqual([
      {
        id: "guard",
        type: "validator",
        subject: "beamline.ext.validate.guard.v1",
        timeout_ms: 200,
        retry: 1,
        enabled: true,
      },
    ]);
    const guarded = JSON.stringify({ weights: { a: 1 }, validators: [{ id: "guard", on_fail: "block" }] });
    await beamline(["policies", "put", "guarded", "-", "-t", "acme"], { input: guarded });
    expect(await ask(world, request("acme", "guarded"))).toMatchObject({ error: { code: "validator_blocked" } });
    expect(asked.length).toBeGreaterThan(0);
    expect(await json("extensions", "health")).toMatchObject([{ extension: "guard", circuit: "closed" }]);
    expect(await json("policies", "list", "-t", "acme")).toMatchObject([{ policy: "guarded", extensions: 1 }]);
    expect(await json("extensions", "delete", "guard", "-t", "acme")).toEqual({ ok: true });
    expect(await json("extensions", "list", "-t", "acme")).toEqual([]);
  });

  verifies("clear-failure", "what is wrong with an extension is told by its field, and nothing is stored", async () => {
    const put = ["extensions", "put", "-", "-t", "careful"];
    const wrong: [readonly string[], string, RegExp][] = [
      [put, "nonsense", /cannot be read as JSON/],
      [put, '{"type":"pre"}', /extension\.id/],
      [put, '{"id":"a b","type":"pre"}', /extension\.id/],
      [put, '{"id":"x"}', /extension\.type/],
      [put, '{"id":"x","type":"middle"}', /extension\.type/],
      [put, '{"id":"x","type":"pre","subject":"log.memory.x"}', /extension\.subject/],
      [put, '{"id":"x","type":"pre","timeout_ms":5}', /extension\.timeout_ms/],
      [put, '{"id":"x","type":"pre","retry":4}', /extension\.retry/],
      [["extensions", "delete", "never", "-t", "careful"], "", /never|not found/i],
    ];
    for (const [args, input, text] of wrong) {
      const { code, out, errors } = await beamline(args, { input });
      expect(errors, `${args.join(" ")} ${input}`).toMatch(text);
      expect({ code, out }, `${args.join(" ")} ${input}`).toEqual({ code: 1, out: "" });
    }
    expect(await json("extensions", "list", "-t", "careful")).toEqual([]);
  });
});
