/** Where the running stack is, for the commands that talk to it: the environment first, then what `beamline up` wrote down. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { Caller } from "../bus/call.ts";
import { Bus } from "../bus/connect.ts";
import { busOptions } from "../bus/options.ts";
import { loadConfig } from "../runtime/config.ts";
import { busSettings, stackSettings } from "../runtime/settings.ts";

/** Written to `<data dir>/stack.json` while the local stack runs; readable by its user alone, for it holds credentials. */
export interface StackFile {
  readonly pid: number;
  readonly grpc: string;
  readonly http: string;
  /** Environment of the operator: NATS_URL, REDIS_URL, user and password. */
  readonly env: Readonly<Record<string, string>>;
}

export function stackPath(dataDir: string): string {
  return join(dataDir, "stack.json");
}

/** The running local stack of the data directory, if there is one. */
export function findStack(env: NodeJS.ProcessEnv = process.env): StackFile | undefined {
  const { BEAMLINE_DATA_DIR } = loadConfig({ BEAMLINE_DATA_DIR: stackSettings.BEAMLINE_DATA_DIR }, env);
  try {
    const stack = JSON.parse(readFileSync(stackPath(BEAMLINE_DATA_DIR), "utf8")) as StackFile;
    process.kill(stack.pid, 0);
    return stack;
  } catch {
    return undefined;
  }
}

export interface Connection extends AsyncDisposable {
  readonly bus: Bus;
  readonly caller: Caller;
}

/** A connection as the operator. Throws `unavailable` naming the URL tried. */
export async function connectStack(): Promise<Connection> {
  const named = process.env["NATS_URL"] !== undefined;
  const env = named ? process.env : { ...process.env, ...findStack()?.env };
  const bus = await Bus.connect({ ...busOptions(loadConfig(busSettings, env), "cli"), connectTimeoutMs: 3_000 });
  bus.onFault(({ code, message }) => {
    process.stderr.write(`${code}: ${message}\n`);
    process.exitCode = 1;
  });
  const caller = new Caller(bus);
  return {
    bus,
    caller,
    async [Symbol.asyncDispose]() {
      caller.stop();
      await bus.drain();
    },
  };
}
