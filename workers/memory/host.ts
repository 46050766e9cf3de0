/** The system in figures: metrics somebody set first, else what this host, the orchestrator and the runtime say (aiOS, memory). */
import { cpus, totalmem } from "node:os";
import { statfs } from "node:fs/promises";
import type { SystemSnapshot } from "../../contracts/gen/aios/memory.ts";
import { OrchestratorDefinition } from "../../contracts/gen/aios/orchestrator.ts";
import { AIRuntimeDefinition } from "../../contracts/gen/aios/runtime.ts";
import { header } from "../../contracts/headers.ts";
import { routesOf, type Route } from "../../contracts/routes.ts";
import type { Caller } from "../../bus/call.ts";
import type { Clock } from "../../runtime/clock.ts";
import type { Hot } from "./ports.ts";

/** Metric keys that stand in for a figure, in the order of the fields (aiOS, memory, snapshot sources). */
const keys = [
  "cpu.usage",
  "memory.used_mb",
  "memory.total_mb",
  "disk.used_gb",
  "disk.total_gb",
  "gpu.utilization",
  "tasks.active",
  "agents.active",
] as const;

const MIB = 1024 ** 2;
const GIB = 1024 ** 3;
/** The other workers are asked once per this time and tenant, and for no longer than the second figure. */
const FRESH_MS = 1_000;
const ASK_MS = 500;

interface Elsewhere {
  readonly tasks: number;
  readonly agents: number;
  readonly models: readonly string[];
}

export class Host {
  readonly #hot: Hot;
  readonly #caller: Caller;
  readonly #clock: Clock;
  readonly #directory: string;
  readonly #known = new Map<string, { readonly at: number; readonly what: Promise<Elsewhere> }>();
  #times = cpuTimes();
  #percent = 0;
  #sampledAt: number;

  constructor(hot: Hot, caller: Caller, clock: Clock, directory: string) {
    this.#hot = hot;
    this.#caller = caller;
    this.#clock = clock;
    this.#directory = directory;
    this.#sampledAt = clock.monotonic();
  }

  async snapshot(tenant: string): Promise<SystemSnapshot> {
    const [metrics, disk, elsewhere] = await Promise.all([
      this.#hot.metrics(tenant, keys),
      this.#disk(),
      this.#elsewhere(tenant),
    ]);
    const figure = (key: (typeof keys)[number], live: number): number => metrics[keys.indexOf(key)]?.value ?? live;
    return {
      cpu_percent: figure("cpu.usage", this.#cpu()),
      memory_used_mb: figure("memory.used_mb", (totalmem() - process.availableMemory()) / MIB),
      memory_total_mb: figure("memory.total_mb", totalmem() / MIB),
      disk_used_gb: figure("disk.used_gb", disk.used),
      disk_total_gb: figure("disk.total_gb", disk.total),
      gpu_utilization: figure("gpu.utilization", 0),
      active_tasks: int32(figure("tasks.active", elsewhere.tasks)),
      active_agents: int32(figure("agents.active", elsewhere.agents)),
      loaded_models: [...elsewhere.models],
    };
  }

  /** Load of all cores since the last look, 0 to 100; looks closer together than a fifth of a second share a figure. */
  #cpu(): number {
    const now = this.#clock.monotonic();
    if (now - this.#sampledAt >= 200 || this.#percent === 0) {
      const times = cpuTimes();
      const total = times.total - this.#times.total;
      if (total > 0)
        this.#percent = Math.min(100, Math.max(0, (100 * (total - (times.idle - this.#times.idle))) / total));
      this.#times = times;
      this.#sampledAt = now;
    }
    return this.#percent;
  }

  async #disk(): Promise<{ readonly used: number; readonly total: number }> {
    try {
      const { blocks, bfree, bsize } = await statfs(this.#directory);
      return { used: ((blocks - bfree) * bsize) / GIB, total: (blocks * bsize) / GIB };
    } catch {
      return { used: 0, total: 0 };
    }
  }

  #elsewhere(tenant: string): Promise<Elsewhere> {
    const now = this.#clock.now();
    const known = this.#known.get(tenant);
    if (known !== undefined && now - known.at < FRESH_MS) return known.what;
    if (this.#known.size > 1_000) this.#known.clear();
    const what = this.#ask(tenant);
    this.#known.set(tenant, { at: now, what });
    return what;
  }

  async #ask(tenant: string): Promise<Elsewhere> {
    const [status, list] = await Promise.all([
      this.#one(routesOf(OrchestratorDefinition).getSystemStatus, tenant),
      this.#one(routesOf(AIRuntimeDefinition).listModels, tenant),
    ]);
    const {
      pending_tasks = 0,
      active_agents = 0,
      loaded_models = [],
    } = status as { pending_tasks?: number; active_agents?: number; loaded_models?: string[] };
    const { models = [] } = list as { models?: { model_name?: string; status?: string }[] };
    const ready = models.filter((model) => model.status === "ready").map((model) => model.model_name ?? "");
    return {
      tasks: pending_tasks,
      agents: active_agents,
      models: [...new Set([...ready, ...loaded_models])].filter((name) => name !== "").sort(),
    };
  }

  /** What another worker says; nothing when it does not run. */
  async #one(route: Route, tenant: string): Promise<unknown> {
    try {
      return await this.#caller.request(
        route.subject,
        {},
        { timeoutMs: ASK_MS, worker: route.worker, headers: { [header.tenantId]: tenant } },
      );
    } catch {
      return {};
    }
  }
}

function cpuTimes(): { readonly idle: number; readonly total: number } {
  let idle = 0;
  let total = 0;
  for (const { times } of cpus()) {
    idle += times.idle;
    total += times.user + times.nice + times.sys + times.irq + times.idle;
  }
  return { idle, total };
}

/** Truncated toward zero, as the contract says, and into the range of its field. */
function int32(value: number): number {
  return Math.max(-(2 ** 31), Math.min(2 ** 31 - 1, Math.trunc(value)));
}
