import { findServers, serversDirectory } from "./find.ts";

/**
 * Finds both servers, or fetches them, before anything needs them: the test runner's global set-up, so that no test's time limit includes a
 * download. Also on its own, where the network is there now but not later: `node deploy/local/prepare.ts`.
 */
export default async function prepare(): Promise<void> {
  await findServers(["nats", "redis"], serversDirectory(), (line) => console.log(line));
}

if (import.meta.main) await prepare();
