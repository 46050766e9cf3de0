/**
 * Plugins: Python scripts that are tools (aiOS tools, 1.7). A plugin is kept in the registry's bucket, code included, so that every worker has
 * it; a worker writes the script out when it runs it. It runs in the sandbox: cleared environment, limits, its own process group.
 */
import { mkdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { keyOf, tokenOf } from "../../../bus/keys.ts";
import type { Clock } from "../../../runtime/clock.ts";
import type { Bucket } from "../bucket.ts";
import { missing, ToolFailure } from "../failure.ts";
import type { Registered } from "../registry.ts";
import { riskOf, TOO_RISKY } from "./pluginrisk.ts";
import type { Limits, Programs } from "../sandbox/run.ts";
import type { Call, Json } from "../tool.ts";

export interface PluginSource {
  readonly name: string;
  readonly description: string;
  readonly code: string;
  readonly author: string;
  readonly capabilities?: readonly string[];
  readonly dependencies?: readonly string[];
  /** Run after this one, each with the result of the one before. */
  readonly next_plugins?: readonly string[];
  /** `pipe`: the last result is the answer. `merge`: all results in one object. */
  readonly output_mode: "pipe" | "merge";
}

/** What is kept of a plugin beside its definition. */
export interface PluginMeta extends PluginSource {
  readonly tool_name: string;
  readonly created_at: string;
  readonly timeout_ms: number;
}

const TIMEOUT_MS = 30_000;
const MAX_OUTPUT = 1024 * 1024;
/** Plugins run one after the other at most. */
const MAX_CHAIN = 10;

/** Reads JSON, calls main, prints JSON. What the script prints goes to stderr, so that it cannot spoil the result. */
const WRAPPER = `
import importlib.util, json, sys, traceback
out, sys.stdout = sys.stdout, sys.stderr
try:
    spec = importlib.util.spec_from_file_location("plugin", sys.argv[1])
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    result = module.main(json.load(sys.stdin))
    if not isinstance(result, dict):
        result = {"result": result}
    text = json.dumps(result)
except BaseException as error:
    out.write(json.dumps({"error": str(error) or type(error).__name__, "traceback": traceback.format_exc()}))
    out.flush()
    sys.exit(1)
out.write(text)
`;

export class Plugins {
  readonly #bucket: Bucket<Registered>;
  readonly #programs: Programs;
  readonly #limits: Limits;
  readonly #directory: string;
  readonly #clock: Clock;

  constructor(bucket: Bucket<Registered>, programs: Programs, limits: Limits, directory: string, clock: Clock) {
    this.#bucket = bucket;
    this.#programs = programs;
    this.#limits = limits;
    this.#directory = directory;
    this.#clock = clock;
  }

  /** Registers a plugin and writes it out. Throws `ToolFailure` when its code is too risky or has no main. */
  async create(
    tenant: string,
    source: PluginSource,
  ): Promise<{ tool_name: string; script_path: string; metadata_path: string }> {
    const { score, because } = riskOf(source.code);
    if (score >= TOO_RISKY) throw new ToolFailure(`the plugin is too risky: ${score} of 100 (${because.join(", ")})`);
    if (!/^(?:async\s+)?def\s+main\s*\(/m.test(source.code))
      throw new ToolFailure("the plugin does not define main(input_data)");
    const tool_name = `plugin.${source.name}`;
    const meta: PluginMeta = {
      ...source,
      tool_name,
      created_at: new Date(this.#clock.now()).toISOString(),
      timeout_ms: TIMEOUT_MS,
    };
    const registered: Registered = {
      definition: {
        name: tool_name,
        namespace: "plugin",
        version: "1.0.0",
        description: source.description,
        input_schema: "",
        output_schema: "",
        required_capabilities: [...(source.capabilities ?? [])],
        risk_level: "medium",
        requires_confirmation: false,
        idempotent: false,
        reversible: false,
        timeout_ms: TIMEOUT_MS,
        rollback_tool: "",
      },
      handler_address: `plugin:${source.name}`,
      registered_at: this.#clock.now(),
      registered_by: source.author,
      plugin: meta,
    };
    await this.#bucket.update(keyOf(tenant, tool_name), (found) => {
      if (found !== undefined) throw new ToolFailure(`the plugin ${source.name} already exists`);
      return registered;
    });
    return { tool_name, ...(await this.#writeOut(tenant, meta)) };
  }

  async exists(tenant: string, name: string): Promise<boolean> {
    return (await this.#meta(tenant, name)) !== undefined;
  }

  async dependencies(tenant: string, name: string): Promise<readonly string[]> {
    const meta = await this.#meta(tenant, name);
    if (meta === undefined) throw new ToolFailure(`there is no plugin ${name}`);
    return meta.dependencies ?? [];
  }

  /** By name. */
  async list(tenant: string): Promise<
    {
      tool_name: string;
      description: string;
      script_path: string;
      dependencies: readonly string[];
      created_at: string;
    }[]
  > {
    const all = await this.#bucket.entries(keyOf(tenant));
    return all
      .flatMap(({ value: { plugin } }) => plugin ?? [])
      .map(({ tool_name, description, name, dependencies = [], created_at }) => ({
        tool_name,
        description,
        script_path: this.#script(tenant, name),
        dependencies,
        created_at,
      }))
      .sort((a, b) => (a.tool_name < b.tool_name ? -1 : 1));
  }

  /** The files that went; undefined when there is no such plugin. */
  async delete(tenant: string, name: string): Promise<string[] | undefined> {
    const key = keyOf(tenant, `plugin.${name}`);
    const { value, revision } = await this.#bucket.get(key);
    if (value?.plugin === undefined) return undefined;
    await this.#bucket.delete(key, revision);
    const files = [this.#script(tenant, name), this.#script(tenant, name).replace(/\.py$/, ".meta.json")];
    for (const file of files) await rm(file, { force: true });
    return files;
  }

  /** Installs packages for the plugins of a tenant. Throws `ToolFailure`. */
  async installInto(tenant: string, packages: readonly string[], signal: AbortSignal): Promise<void> {
    const target = join(this.#home(tenant), ".deps");
    await mkdir(target, { recursive: true });
    await this.#programs.must(
      "python3",
      [
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-input",
        "--disable-pip-version-check",
        "--target",
        target,
        "--",
        ...packages,
      ],
      { signal, foreign: true },
    );
  }

  /** Runs a plugin and what it hands on to. Throws `ToolFailure` with what went wrong. */
  async run(meta: PluginMeta, input: Json, call: Call): Promise<Json> {
    const merged: Json = {};
    let result = input;
    let waiting: readonly string[] = [meta.name];
    for (let count = 0; waiting.length > 0; count++) {
      const [name = "", ...rest] = waiting;
      if (count >= MAX_CHAIN) throw new ToolFailure(`plugin.${meta.name}: more than ${MAX_CHAIN} plugins in a chain`);
      const next = name === meta.name && count === 0 ? meta : await this.#meta(call.tenant, name);
      if (next === undefined) throw new ToolFailure(`plugin.${meta.name}: the plugin ${name} it hands on to is gone`);
      result = await this.#runOne(
        next,
        meta.output_mode === "merge" && count > 0 ? { ...input, ...merged } : result,
        call,
      );
      Object.assign(merged, result);
      waiting = [...rest, ...(next.next_plugins ?? [])];
    }
    return meta.output_mode === "merge" ? merged : result;
  }

  async #runOne(meta: PluginMeta, input: Json, call: Call): Promise<Json> {
    if ((await this.#programs.find("python3")) === undefined)
      throw missing("the program python3", "plugins are Python scripts");
    const { script_path } = await this.#writeOut(call.tenant, meta);
    const { code, stdout, stderr, truncated } = await this.#programs.run(
      "python3",
      ["-B", "-c", WRAPPER, script_path],
      {
        input: JSON.stringify(input),
        signal: call.signal,
        limits: this.#limits,
        foreign: true,
        maxBytes: MAX_OUTPUT,
        env: { PYTHONPATH: join(this.#home(call.tenant), ".deps"), PYTHONIOENCODING: "utf-8" },
      },
    );
    if (truncated) throw new ToolFailure(`${meta.tool_name}: it wrote more than ${MAX_OUTPUT} bytes`);
    const result = parse(stdout);
    if (code !== 0 || result === undefined) {
      const why = typeof result?.["error"] === "string" ? result["error"] : stderr.trim().slice(-1_000);
      throw new ToolFailure(
        `${meta.tool_name} failed${why === "" ? (code === null ? ": it was killed" : "") : `: ${why}`}`,
      );
    }
    return stderr.trim() === "" ? result : { ...result, stderr: stderr.trim().slice(-5_000) };
  }

  async #meta(tenant: string, name: string): Promise<PluginMeta | undefined> {
    return (await this.#bucket.get(keyOf(tenant, `plugin.${name}`))).value?.plugin;
  }

  async #writeOut(tenant: string, meta: PluginMeta): Promise<{ script_path: string; metadata_path: string }> {
    const script_path = this.#script(tenant, meta.name);
    const metadata_path = script_path.replace(/\.py$/, ".meta.json");
    if ((await readFile(script_path, "utf8").catch(() => undefined)) !== meta.code) {
      await mkdir(this.#home(tenant), { recursive: true });
      const { code, ...rest } = meta;
      for (const [path, text] of [
        [metadata_path, JSON.stringify(rest, null, 2)],
        [script_path, code],
      ] as const) {
        const beside = `${path}.${process.pid}.tmp`;
        await writeFile(beside, text, { mode: 0o644 });
        await rename(beside, path);
      }
    }
    return { script_path, metadata_path };
  }

  #home(tenant: string): string {
    return join(this.#directory, tokenOf(tenant));
  }

  #script(tenant: string, name: string): string {
    return join(this.#home(tenant), `${name}.py`);
  }
}

function parse(text: string): Json | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Json) : undefined;
  } catch {
    return undefined;
  }
}
