import { join } from "node:path";
import { LocalStackError } from "./failure.ts";
import { lockHolder, tryLock } from "./lock.ts";
import type { Lock } from "./lock.ts";
import { freePort, isPortFree } from "./ports.ts";
import type { ServerName } from "./requirements.ts";
import { EarlyExit } from "./serverprocess.ts";
import type { ServerProcess } from "./serverprocess.ts";

/** What is asked of the local servers. */
export interface LocalOptions {
  /** Stores, logs and credentials go below it. Made when it is not there. */
  readonly dataDir: string;
  /** `default` (4222, 6379, 8222, each replaced by a free one when it is taken) or `free` (tests: any). */
  readonly ports?: "default" | "free";
  /** Use this NATS server as it is, and start none. A list with commas names one cluster. */
  readonly natsUrl?: string;
  /** Use this Redis server as it is, and start none. */
  readonly redisUrl?: string;
  /** Told what takes long (one line each) and what is unexpected. */
  readonly onProgress?: (line: string) => void;
  /** Told when a server that was started here ends without having been asked to. */
  readonly onExit?: (name: ServerName, how: string) => void;
  /** JetStream's `sync_interval`; default `always`, as shipped. Anything else can lose what was acknowledged in a power cut. */
  readonly syncInterval?: string;
  /** Where fetched servers are kept. Default: {@link serversDirectory}. */
  readonly serversDir?: string;
}

/** One server, ours or named by a URL. */
export interface LocalServer {
  readonly name: ServerName;
  /** Without credentials when it is ours; as given when it was named. */
  readonly url: string;
  readonly version: string;
  readonly port: number;
  /** False when it was named by a URL: then it is never stopped. */
  readonly started: boolean;
  /** Of the process that runs now, when it is ours. */
  readonly pid?: number;
  /** Something worth telling: a default port was taken, … */
  readonly note?: string;
  /** NATS only, when it is ours: its HTTP monitoring. */
  readonly monitorUrl?: string;
}

/** A server with its switches. They throw LocalStackError on one that was named by a URL, except `stop`, which leaves it alone. */
export interface ManagedServer extends LocalServer, AsyncDisposable {
  /** SIGKILL, for crash tests. Its port and store stay reserved for `restart`. */
  kill(): Promise<void>;
  /** Stops it if it runs, then starts it again on the same port and store. Resolves when it answers. */
  restart(): Promise<void>;
  /** SIGTERM, SIGKILL after 10 s. Gives the store free. Resolves when no process is left. May be called again. */
  stop(): Promise<void>;
}

/** A server someone else runs. */
export function namedServer(
  name: ServerName,
  url: string,
  found: { version: string; port: number; note?: string },
): ManagedServer {
  const notOurs = (): never => {
    throw new LocalStackError(`${url} was not started here`);
  };
  return {
    name,
    url,
    ...found,
    started: false,
    kill: async () => notOurs(),
    restart: async () => notOurs(),
    stop: async () => {},
    [Symbol.asyncDispose]: async () => {},
  };
}

/** A server of ours: what it is, and how to start its process. */
export interface OwnServer extends Omit<LocalServer, "started" | "pid"> {
  readonly launch: () => Promise<ServerProcess>;
}

/** Puts the switches on a process that runs already. Releases the lock at the end. */
export function ownServer(
  server: OwnServer,
  first: ServerProcess,
  lock: Lock,
  onExit: LocalOptions["onExit"],
): ManagedServer {
  const { launch, ...facts } = server;
  let current: ServerProcess | undefined;
  const adopt = (process: ServerProcess) => {
    current = process;
    void process.exited.then((how) => {
      if (current !== process) return; // Asked for: `current` was let go of before.
      current = undefined;
      onExit?.(server.name, how);
    });
  };
  const letGo = () => {
    const process = current;
    current = undefined;
    return process;
  };
  const stop = async () => {
    await letGo()?.stop();
    lock.release();
  };
  adopt(first);
  return {
    ...facts,
    started: true,
    get pid() {
      return current?.pid ?? first.pid;
    },
    async kill() {
      await letGo()?.kill();
    },
    async restart() {
      await letGo()?.stop();
      adopt(await launch());
    },
    stop,
    [Symbol.asyncDispose]: stop,
  };
}

/** Reserves a store for this process. Throws LocalStackError when another one uses it. */
export function lockStore(directory: string, dataDir: string): Lock {
  const path = join(directory, "lock");
  const lock = tryLock(path);
  if (lock !== undefined) return lock;
  const holder = lockHolder(path);
  throw new LocalStackError(
    `the data directory ${dataDir} is in use${holder === undefined ? "" : ` by process ${holder}`}: a store cannot be shared. ` +
      `Stop that one first, or set BEAMLINE_DATA_DIR to another directory.`,
  );
}

/**
 * Starts on the preferred port, or on a free one when it is taken or none is preferred. Between finding a port free and listening on it
 * someone else may take it: then the next one is tried.
 */
export async function onSomePort<T>(
  preferred: number | undefined,
  start: (port: number) => Promise<T>,
): Promise<[T, number]> {
  let port = preferred !== undefined && (await isPortFree(preferred)) ? preferred : await freePort();
  for (let attempt = 1; ; attempt++) {
    try {
      return [await start(port), port];
    } catch (error) {
      const collided = error instanceof EarlyExit && /address already in use/i.test(error.log);
      if (!collided || attempt === 5) throw error;
      port = await freePort();
    }
  }
}

/** `port 4222 is taken by something else` when it is, else nothing. */
export function portNote(preferred: number | undefined, port: number): { note?: string } {
  return preferred === undefined || preferred === port ? {} : { note: `port ${preferred} is taken by something else` };
}
