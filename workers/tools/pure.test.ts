import { chmod, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createHash } from "node:crypto";
import { array, assert, constantFrom, property, string } from "fast-check";
import { describe, expect, test } from "vitest";
import { agents, allCapabilities, lacking, parseHeld, wordDenied } from "./capabilities.ts";
import { chained, emptyChain, flaw, headOf, type Row } from "./audit/chain.ts";
import { within } from "./files/confine.ts";
import { globMatcher } from "./files/glob.ts";
import { riskOf, TOO_RISKY } from "./plugins/pluginrisk.ts";
import { Secrets, withoutSecrets } from "./secrets.ts";

describe("capabilities", () => {
  test("the table is the contract's", () => {
    expect(allCapabilities.length).toBe(30);
    expect(Object.keys(agents).length).toBe(11);
    expect(agents["system-agent"]).toEqual(["monitor_read", "service_read", "service_manage", "process_read"]);
    expect(wordDenied(["a", "b"])).toBe('Capability denied: missing ["a", "b"]');
  });

  test.each([
    ["fs_write", ["fs_write"], ["/any"], true],
    ["fs.write", ["fs_write"], ["/any"], true],
    ["fs:write", ["fs_write"], ["/any"], true],
    ["fs:write:*", ["fs_write"], ["/any"], true],
    ["fs:*", ["fs_read", "fs_write"], [], true],
    ["*", ["pkg_manage"], [], true],
    ["fs:write:/etc/nginx/*", ["fs_write"], ["/etc/nginx/a/b"], true],
    ["fs:write:/etc/nginx/*", ["fs_write"], ["/etc/nginx"], false],
    ["fs:write:/etc/nginx/*", ["fs_write"], ["/etc/passwd"], false],
    ["fs:write:/etc/nginx/*", ["fs_write"], ["/etc/nginx/a", "/etc/passwd"], false],
    ["fs:write:/etc/nginx/*", ["fs_write"], [], false],
    ["fs_write:/a*z", ["fs_write"], ["/abcz"], true],
    ["fs_write:/a*z", ["fs_write"], ["/abc"], false],
    ["fs_writer", ["fs_write"], [], false],
  ] as const)("%s for %j at %j: %s", (held, needs, paths, allowed) => {
    const parsed = parseHeld(held);
    expect(lacking(needs, parsed === undefined ? [] : [parsed], paths).length === 0).toBe(allowed);
  });

  test.each(["", "a b", "FS_READ", "fs_read;", "../x", ":/x"])("%j is none", (text) =>
    expect(parseHeld(text)).toBeUndefined(),
  );
});

describe("globs", () => {
  test.each([
    ["*.txt", "a.txt", true],
    ["*.txt", "a.txt.gz", false],
    ["a?c", "abc", true],
    ["[abc]x", "bx", true],
    ["[!abc]x", "bx", false],
    ["[!abc]x", "dx", true],
    ["[a-c]", "b", false],
    ["[a-c]", "-", true],
    ["[", "[", true],
    ["*", "", true],
    ["a*b*c", "aXXbYYc", true],
    ["(a+)+$", "(a+)+$", true],
  ])("%s %s", (pattern, name, fits) => expect(globMatcher(pattern)(name)).toBe(fits));

  test("many stars take no time to speak of", () => {
    const started = performance.now();
    expect(globMatcher(`${"*a".repeat(100)}b`)("a".repeat(250))).toBe(false);
    expect(performance.now() - started).toBeLessThan(1_000);
  });
});

describe("the chains", () => {
  const happening = (n: number) => ({
    execution_id: `e${n}`,
    tool_name: "fs.read",
    agent_id: "a",
    task_id: "",
    reason: "r",
    success: true,
    duration_ms: n,
    timestamp: "2026-01-01T00:00:00Z",
    output: "{}",
  });

  test("the published hash is the plain one; any changed field is noticed", () => {
    const rows: Row[] = [];
    for (let n = 0, head = emptyChain; n < 5; n++) {
      const row = chained(head, happening(n));
      rows.push(row);
      head = headOf(row);
    }
    const [first, second] = rows;
    if (first === undefined || second === undefined) throw new Error("no rows");
    const plain = (text: string) => createHash("sha256").update(text).digest("hex");
    expect(first.hash).toBe(plain("genesise0fs.reada2026-01-01T00:00:00Z"));
    expect(second.hash).toBe(plain(`${first.hash}e1fs.reada2026-01-01T00:00:00Z`));
    expect(Object.keys(first).slice(0, 11).join(" ")).toBe(
      "id execution_id tool_name agent_id task_id reason success duration_ms timestamp prev_hash hash",
    );
    expect(flaw(emptyChain, first)).toBeUndefined();
    expect(flaw(headOf(first), second)).toBeUndefined();
    for (const field of Object.keys(second) as (keyof Row)[]) {
      const value = second[field];
      const changed = {
        ...second,
        [field]: typeof value === "boolean" ? !value : typeof value === "number" ? value + 1 : `${String(value)}x`,
      };
      expect(flaw(headOf(first), changed), field).toBeDefined();
    }
    const { output: _gone, ...without } = second;
    expect(flaw(headOf(first), without as Row)).toContain("full hash");
  });
});

test("paths below a root are inside, and no others", () => {
  const name = string({ minLength: 1 }).filter(
    (text) => !text.includes("/") && !text.includes("\0") && text !== "." && text !== "..",
  );
  assert(property(array(name, { maxLength: 5 }), (names) => within("/srv/here", ["/srv/here", ...names].join("/"))));
  assert(
    property(constantFrom("/srv", "/srv/herein", "/", "/srv/her", "/srv/..here"), (path) => !within("/srv/here", path)),
  );
  expect(within("/", "/etc")).toBe(true);
});

test("scripts are as risky as what is written in them", () => {
  expect(riskOf("def main(d):\n    # os.system('x')\n    return {}").score).toBe(0);
  expect(riskOf("open('a')\nopen('b')")).toEqual({ score: 10, because: ["open"] });
  expect(riskOf("os.system('a')\neval('b')\nexec('c')").score).toBeGreaterThanOrEqual(TOO_RISKY);
  expect(riskOf("os.system()\n".repeat(10)).score).toBe(100);
});

test("secrets are put in by reference, from a private file alone, and cut out again", async () => {
  const directory = await mkdtemp(join(tmpdir(), "beamline-secrets-"));
  const file = join(directory, "secrets.toml");
  await writeFile(file, '# mine\nflat = "one-two"\n[api_keys]\nclaude = \'sk "x"\'\nopenai = "a\\tb" # no\n', {
    mode: 0o600,
  });
  const secrets = new Secrets(file);
  const { input, used } = await secrets.resolve({
    a: "secret:flat",
    b: ["secret:api_keys.claude"],
    c: "not secret:flat",
  });
  expect(input).toEqual({ a: "one-two", b: ['sk "x"'], c: "not secret:flat" });
  expect(withoutSecrets(JSON.stringify({ said: 'one-two and sk "x"' }), used)).toBe(
    '{"said":"[REDACTED] and [REDACTED]"}',
  );
  await expect(secrets.resolve({ a: "secret:nope" })).rejects.toThrow("there is no secret nope");
  await chmod(file, 0o644);
  await expect(secrets.resolve({ a: "secret:flat" })).rejects.toThrow("must have mode 600");
  await expect(new Secrets(undefined).resolve({ a: "secret:flat" })).rejects.toThrow("no secrets are configured");
  await rm(directory, { recursive: true });
});
