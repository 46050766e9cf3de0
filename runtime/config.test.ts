import { expect, expectTypeOf, test } from "vitest";
import { ConfigError, describeConfig, formatConfig, loadConfig, unknownSettings } from "./config.ts";
import type { Environment, Table } from "./config.ts";
import { choice, file, int, optional, required, secret, text, url } from "./setting.ts";
import type { Address } from "./setting.ts";
import {
  busSettings,
  edgeSettings,
  processSettings,
  sharedSettings,
  stackSettings,
  workerSettings,
} from "./settings.ts";

const table = {
  WHERE: url(required, "Where it is."),
  COUNT: int(3, "How many.", { min: 1, max: 9 }),
  MODE: choice(["fast", "safe"], "safe", "How it works."),
  NAME: text(optional, "What it is called."),
  KEY: secret(optional, "What opens it.", { pattern: /^.{8,}$/, expected: "8 or more characters" }),
  CERT: file(optional, "The certificate.", { needs: ["CERT_KEY"] }),
  CERT_KEY: file(optional, "Its key.", { needs: ["CERT"] }),
};

const files: Record<string, string> = {
  "/run/key": "from-a-file\n",
  "/run/empty": "\n",
  "/run/short": "short",
  "/cert": "pem",
};
const readFile = (path: string) => files[path];
const load = (env: Environment) => loadConfig(table, env, readFile);

/** The mistakes of a load that must fail. */
function mistakes(env: Environment) {
  try {
    load(env);
  } catch (error) {
    if (error instanceof ConfigError) return error;
    throw error;
  }
  throw new Error("The configuration was accepted.");
}

test("defaults and given values become one typed, frozen object", () => {
  const config = load({ WHERE: "http://a", COUNT: "5", NAME: "" });
  expect(config).toEqual({ WHERE: "http://a", COUNT: 5, MODE: "safe" });
  expect(Object.isFrozen(config)).toBe(true);
  expectTypeOf(config.WHERE).toEqualTypeOf<string>();
  expectTypeOf(config.COUNT).toEqualTypeOf<number>();
  expectTypeOf(config.MODE).toEqualTypeOf<"fast" | "safe">();
  expectTypeOf(config.NAME).toEqualTypeOf<string | undefined>();
});

test("every mistake is reported at once, with what was given, what is right and what it is for", () => {
  const error = mistakes({ COUNT: "12", MODE: "wild", KEY: "hunter2", CERT: "/gone" });
  expect(error.mistakes.map(({ name }) => name)).toEqual(["WHERE", "COUNT", "MODE", "KEY", "CERT", "CERT_KEY"]);
  expect(error.message).toContain("The configuration has 6 mistakes:");
  expect(error.message).toContain("WHERE is not set: expected a URL. Where it is.");
  expect(error.message).toContain('COUNT is "12": expected a whole number from 1 to 9. How many.');
  expect(error.message).toContain("CERT_KEY is not set: expected a value, since CERT is set. Its key.");
});

test("no mistake prints a secret", () => {
  const { message } = mistakes({ WHERE: "not a url user:hunter2@host", KEY: "hunter2" });
  expect(message).not.toContain("hunter2");
  expect(message).toContain('KEY is "[REDACTED]": expected 8 or more characters');
});

test("a secret may come from a file, without its last line break", () => {
  expect(load({ WHERE: "http://a", KEY_FILE: "/run/key" }).KEY).toBe("from-a-file");
});

test("secret files: missing, empty, wrong content or given twice are mistakes", () => {
  const expected = (env: Environment) => mistakes({ WHERE: "http://a", ...env }).mistakes[0];
  expect(expected({ KEY_FILE: "/gone" })).toMatchObject({ name: "KEY_FILE", given: "/gone" });
  expect(expected({ KEY_FILE: "/run/empty" })).toMatchObject({ name: "KEY_FILE" });
  expect(expected({ KEY_FILE: "/run/short" })?.expected).toBe("a file holding 8 or more characters");
  expect(expected({ KEY_FILE: "/run/key", KEY: "long enough" })?.expected).toBe("only one of KEY and KEY_FILE");
});

test("describe shows value, source and default of each, never a secret, and never throws", () => {
  const rows = describeConfig(table, { WHERE: "http://u:hunter2@a", COUNT: "many", KEY_FILE: "/run/key" }, readFile);
  const byName = Object.fromEntries(rows.map((row) => [row.name, row]));
  expect(byName.WHERE).toMatchObject({ default: null, value: "http://[REDACTED]@a", source: "env", type: "url" });
  expect(byName.COUNT).toMatchObject({ default: "3", value: "many", expected: "a whole number from 1 to 9" });
  expect(byName.MODE).toMatchObject({ default: "safe", value: "safe", source: "default" });
  expect(byName.KEY).toMatchObject({ default: "", value: "[REDACTED]", source: "file" });
  const printed = formatConfig(rows);
  expect(printed.split("\n")).toHaveLength(rows.length);
  expect(printed).toContain("many (wrong)");
  expect(printed + JSON.stringify(rows)).not.toMatch(/hunter2|from-a-file/);
});

test("unknown BEAMLINE_ names are found, with the name that was probably meant", () => {
  const env = {
    BEAMLINE_GRPC_ADR: "x",
    BEAMLINE_WHATEVER_ELSE: "x",
    BEAMLINE_ROUTER_ADMIN_API_KEY_FILE: "/k",
    OTHER: "x",
  };
  expect(unknownSettings(sharedSettings, env)).toEqual([
    { name: "BEAMLINE_GRPC_ADR", nearest: "BEAMLINE_GRPC_ADDR" },
    { name: "BEAMLINE_WHATEVER_ELSE" },
  ]);
});

test("the shared settings load from nothing, with the documented defaults", () => {
  const config = loadConfig({ ...processSettings, ...busSettings, ...edgeSettings, ...workerSettings }, {});
  expectTypeOf(config.BEAMLINE_GRPC_ADDR).toEqualTypeOf<Address>();
  expectTypeOf(config.BEAMLINE_WORKER_HTTP_ADDR).toEqualTypeOf<Address | undefined>();
  expect(config).toMatchObject({
    BEAMLINE_GRPC_ADDR: { host: "127.0.0.1", port: 50051 },
    BEAMLINE_HTTP_ADDR: { host: "127.0.0.1", port: 8080 },
    BEAMLINE_MAX_MESSAGE_BYTES: 4_194_304,
    BEAMLINE_DRAIN_MS: 10_000,
    NATS_URL: ["nats://127.0.0.1:4222"],
    REDIS_URL: "redis://127.0.0.1:6379",
    BEAMLINE_DATA_DIR: ".beamline",
    OTEL_TRACES_SAMPLER_ARG: 0.01,
  });
});

test("the local stack knows which servers were named", () => {
  const all = { ...busSettings, ...workerSettings, ...stackSettings };
  expectTypeOf(loadConfig(all, {}).NATS_URL).toEqualTypeOf<readonly string[] | undefined>();
  expect(loadConfig(all, {}).NATS_URL).toBeUndefined();
  expect(loadConfig(all, { NATS_URL: "10.0.0.1:4222" }).NATS_URL).toEqual(["nats://10.0.0.1:4222"]);
});

test("the admin key is 8 or more of the allowed characters", () => {
  const key = { BEAMLINE_ROUTER_ADMIN_API_KEY: edgeSettings.BEAMLINE_ROUTER_ADMIN_API_KEY };
  expect(loadConfig(key, { BEAMLINE_ROUTER_ADMIN_API_KEY: "dev-key_1.0" })).toEqual({
    BEAMLINE_ROUTER_ADMIN_API_KEY: "dev-key_1.0",
  });
  for (const wrong of ["short", "has spaces in it", "ünïcödé-key"]) {
    expect(() => loadConfig(key, { BEAMLINE_ROUTER_ADMIN_API_KEY: wrong })).toThrow("8 or more letters");
  }
});

test("settings that need each other name settings that exist", () => {
  const needs = Object.values<Table[string]>(sharedSettings).flatMap((setting) => setting.needs);
  expect(needs.length).toBeGreaterThan(0);
  for (const name of needs) expect(sharedSettings).toHaveProperty(name);
});
