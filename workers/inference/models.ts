/**
 * Models on this machine (aiOS, runtime): llama-server children, one per model, each asked over its own OpenAI-compatible port on loopback; and models that
 * are simply there, such as the deterministic one or a server someone else runs.
 *
 * L1 A model that is loading or ready is not started again.
 * L2 A child that ends by itself leaves its model in error; it is not restarted.
 * L3 Once closed, nothing is started any more: a child would outlive its process.
 */
import { spawn, type ChildProcess } from "node:child_process";
import { createServer } from "node:net";
import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { BeamlineError, invalidArgument } from "../../contracts/errors.ts";
import type { Clock } from "../../runtime/clock.ts";
import type { Logger } from "../../runtime/log.ts";
import { openAiProvider } from "./provider.openai.ts";
import type { Provider } from "./provider.ts";

const GIB = 1024 ** 3;
const FIRST_PORT = 8080;
const PROBE_MS = 500;
const UNLOAD_MS = 10_000;

export interface LoadRequest {
  readonly name: string;
  readonly path: string;
  readonly contextLength: number;
  readonly gpuLayers: number;
  readonly threads: number;
  /** 0 takes the next free one from 8080. */
  readonly port: number;
}

export interface Model {
  readonly name: string;
  status: string;
  port: number;
  loadedAtMs: number;
  lastUsedMs: number;
  requests: number;
  readonly provider: Provider;
  readonly child?: ChildProcess;
}

export interface ModelHostOptions {
  /** The llama-server program. */
  readonly binary: string;
  readonly directory: string | undefined;
  readonly clock: Clock;
  readonly log: Logger;
}

export class ModelHost {
  readonly #options: ModelHostOptions;
  readonly #models = new Map<string, Model>();
  #closed = false;

  constructor(options: ModelHostOptions) {
    this.#options = options;
  }

  /** A model that needs no process of ours. */
  provide(name: string, provider: Provider, port = 0): void {
    this.#models.set(name, {
      name,
      status: "ready",
      port,
      loadedAtMs: this.#options.clock.now(),
      lastUsedMs: 0,
      requests: 0,
      provider,
    });
  }

  /** Ordered by name. */
  get all(): readonly Model[] {
    return [...this.#models.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  get ready(): readonly Model[] {
    return this.all.filter(({ status }) => status === "ready");
  }

  /** Loads every `.gguf` of the directory, one after another. A directory that is not there has none. Never rejects. */
  async loadDirectory(): Promise<void> {
    const { directory, log } = this.#options;
    if (directory === undefined) return;
    const files = await readdir(directory).catch(() => []);
    for (const file of files.filter((name) => name.endsWith(".gguf")).sort()) {
      if (this.#closed) return;
      const size = await sizeOf(join(directory, file));
      if (size === undefined) {
        log.warn("a model cannot be read", { model: file });
        continue;
      }
      const [contextLength, threads] =
        size > 8 * GIB ? [8192, 4] : size > 4 * GIB ? [4096, 4] : size > 2 * GIB ? [4096, 3] : [2048, 2];
      const request = {
        name: file.slice(0, -".gguf".length),
        path: join(directory, file),
        contextLength,
        threads,
        gpuLayers: 0,
        port: 0,
      };
      await this.load(request).catch((error: unknown) =>
        log.warn("a model could not be loaded", { model: request.name, error }),
      );
    }
  }

  /** Resolves when the model is ready, or in error after its time. Throws `internal` when it cannot be started at all, `unavailable` after `close`. */
  async load(request: LoadRequest): Promise<Model> {
    const { name } = request;
    if (name === "" || /[/\\\0]/.test(name)) throw invalidArgument("model_name", "must be a name without slashes");
    const known = this.#models.get(name);
    if (known !== undefined && (known.status === "loading" || known.status === "ready")) return known; // L1
    const path = request.path || join(this.#options.directory ?? ".", name);
    const size = await sizeOf(path);
    if (size === undefined) throw new BeamlineError("internal", `Failed to load model: ${path} cannot be read`);
    const port = request.port > 0 ? request.port : await this.#freePort();
    const args = [
      "-m",
      path,
      "--host",
      "127.0.0.1",
      "--port",
      String(port),
      "-c",
      String(request.contextLength),
      "-t",
      String(request.threads),
      "-ngl",
      String(request.gpuLayers),
    ];
    if (this.#closed) throw new BeamlineError("unavailable", "the worker that serves models is stopping"); // L3
    const child = spawn(this.#options.binary, args, { stdio: "ignore" });
    const model: Model = {
      name,
      status: "loading",
      port,
      loadedAtMs: 0,
      lastUsedMs: 0,
      requests: 0,
      provider: openAiProvider({
        family: "local",
        name,
        apiKey: undefined,
        baseUrl: `http://127.0.0.1:${port}/v1`,
        model: name,
      }),
      child,
    };
    this.#models.set(name, model);
    await this.#untilReady(model, child, size > 2 * GIB ? 120_000 : 60_000);
    return model;
  }

  /** Ends the child. Throws `internal` for a model nobody knows. */
  async unload(name: string): Promise<void> {
    const model = this.#models.get(name);
    if (model === undefined) throw new BeamlineError("internal", `Failed to unload model: Model '${name}' not found`);
    model.status = "unloading";
    await end(model.child);
    this.#models.delete(name);
  }

  /** L3. */
  async close(): Promise<void> {
    this.#closed = true;
    await Promise.all(this.all.map(({ child }) => end(child)));
    this.#models.clear();
  }

  async #untilReady(model: Model, child: ChildProcess, timeoutMs: number): Promise<void> {
    const { clock } = this.#options;
    let gone: string | undefined;
    child.on("error", (error) => (gone = error.message));
    child.once("exit", (code, signal) => {
      gone ??= `ended with ${code ?? signal}`;
      if (model.status === "ready") model.status = `error: the model server ${gone}`; // L2
    });
    const until = clock.monotonic() + timeoutMs;
    while (clock.monotonic() < until) {
      const answered = await fetch(`http://127.0.0.1:${model.port}/health`, {
        signal: AbortSignal.timeout(PROBE_MS),
      }).then(
        (answer) => answer.ok,
        () => false,
      );
      if (gone !== undefined) {
        this.#models.delete(model.name);
        throw new BeamlineError("internal", `Failed to load model: the model server ${gone}`);
      }
      if (answered) {
        model.status = "ready";
        model.loadedAtMs = clock.now();
        return;
      }
      await clock.sleep(PROBE_MS);
    }
    model.status = `error: not ready within ${timeoutMs / 1000} s`;
    await end(child);
  }

  async #freePort(): Promise<number> {
    const taken = new Set(this.all.map(({ port }) => port));
    for (let port = FIRST_PORT; port < FIRST_PORT + 1_000; port++)
      if (!taken.has(port) && (await isFree(port))) return port;
    throw new BeamlineError("internal", "Failed to load model: no port is free");
  }
}

/** Bytes; undefined for what cannot be read, such as a link that leads nowhere. */
function sizeOf(path: string): Promise<number | undefined> {
  return stat(path).then(
    ({ size }) => size,
    () => undefined,
  );
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = createServer();
    probe.once("error", () => resolve(false));
    probe.listen(port, "127.0.0.1", () => probe.close(() => resolve(true)));
  });
}

/** SIGTERM, and SIGKILL after ten seconds. */
async function end(child: ChildProcess | undefined): Promise<void> {
  if (child === undefined || child.exitCode !== null || child.signalCode !== null || child.pid === undefined) return;
  const gone = new Promise<void>((resolve) => child.once("exit", () => resolve()));
  child.kill("SIGTERM");
  const late = setTimeout(() => child.kill("SIGKILL"), UNLOAD_MS);
  await gone;
  clearTimeout(late);
}
