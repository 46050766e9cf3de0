/** Real servers for tests: one per test file, on free ports, with a fresh store below the system's temporary folder. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Bus } from "../../bus/connect.ts";
import { startNats, type ManagedServer, type NatsCredentials, type NatsUser } from "../../deploy/local/servers.ts";
import { loadCredentials } from "../../deploy/local/credentials.ts";

/** A NATS server of a test's own, as `nats.conf` ships it. */
export interface TestNats extends AsyncDisposable {
  readonly server: ManagedServer;
  /** How each user connects, for processes of their own. */
  readonly credentials: NatsCredentials;
  /** A new connection. Default user `worker`. Close or drain it; what is left open is closed with the server. */
  connect(name?: string, user?: NatsUser): Promise<Bus>;
  /** Closes the connections, stops the server, deletes its store. */
  stop(): Promise<void>;
}

/** Starts a server. `syncInterval` as shipped (`always`) unless a test of speed needs another. */
export async function startTestNats(options: { readonly syncInterval?: string } = {}): Promise<TestNats> {
  const dataDir = await mkdtemp(join(tmpdir(), "beamline-test-"));
  const server = await startNats({ dataDir, ports: "free", ...options });
  const credentials = loadCredentials(dataDir);
  const open: Bus[] = [];
  const stop = async (): Promise<void> => {
    await Promise.all(open.map((bus) => bus.close()));
    await server.stop();
    await rm(dataDir, { recursive: true, force: true });
  };
  return {
    server,
    credentials,
    async connect(name = "test", user = "worker") {
      const bus = await Bus.connect({ url: server.url, name, ...credentials[user] });
      open.push(bus);
      return bus;
    },
    stop,
    [Symbol.asyncDispose]: stop,
  };
}
