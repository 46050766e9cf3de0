/** What a worker is: a name, the settings and streams it needs, and how it opens. workers/main.ts starts the named ones. */
import type { Caller } from "../bus/call.ts";
import type { Bus } from "../bus/connect.ts";
import type { Endpoint } from "../bus/endpoint.ts";
import type { BucketSpec, ObjectSpec, StreamSpec } from "../contracts/streams.ts";
import type { Config, Environment, Table } from "../runtime/config.ts";
import type { Scope } from "../runtime/lifecycle.ts";
import type { Logger } from "../runtime/log.ts";
import type { Registry } from "../runtime/metrics.ts";
import type { workerSettings } from "../runtime/settings.ts";

/** What every worker is given. Whatever else it opens, it opens itself, in its scope. */
export interface WorkerContext<T extends Table = Table> {
  /** Its configuration: the shared settings of workers and its own table. */
  readonly config: Config<T> & Config<typeof workerSettings>;
  readonly bus: Bus;
  /** For calls to other workers and to extensions. */
  readonly caller: Caller;
  readonly log: Logger;
  readonly metrics: Registry;
  /** Calls this worker has accepted and not answered: running, and waiting for a place. Nothing before it serves. */
  readonly calls: () => { readonly active: number; readonly waiting: number };
  /** The environment, for child processes of tools alone; settings come from `config`. */
  readonly env: Environment;
}

export interface WorkerModule<T extends Table = Table> {
  /** Worker name: queue group, process name, `beamline worker <name>`. */
  readonly name: string;
  readonly settings: T;
  readonly streams?: readonly StreamSpec[];
  readonly buckets?: readonly BucketSpec[];
  readonly objects?: readonly ObjectSpec[];
  /**
   * Opens what the worker needs, in order, in its scope; returns what it serves. Intake starts after this, and stops before any of
   * it is closed.
   */
  open(scope: Scope, context: WorkerContext<T>): Promise<readonly Endpoint[]>;
}

/** Keeps the settings' types while naming them once. */
export function defineWorker<const T extends Table>(module: WorkerModule<T>): WorkerModule<T> {
  return module;
}
