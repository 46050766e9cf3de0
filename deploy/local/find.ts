import { mkdirSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { join } from "node:path";
import { distribution } from "./apt.ts";
import { LocalStackError, reasonOf } from "./failure.ts";
import { fetchServers } from "./fetch.ts";
import { fetched, onPath } from "./installed.ts";
import type { Executable } from "./installed.ts";
import { lockHolder, waitForLock } from "./lock.ts";
import { minimumText, requirements } from "./requirements.ts";
import type { Requirement, ServerName } from "./requirements.ts";
import { compareVersions, formatVersion, isAtLeast } from "./version.ts";

/** Fetching must be over by then, or something is wrong with the network. */
const FETCH_DEADLINE_MS = 15 * 60_000;

/** Where fetched servers are kept for every run of this checkout: `.beamline/servers`, or what `BEAMLINE_SERVERS_DIR` names. */
export function serversDirectory(env: NodeJS.ProcessEnv = process.env): string {
  return env["BEAMLINE_SERVERS_DIR"] || join(fileURLToPath(new URL("../..", import.meta.url)), ".beamline", "servers");
}

/**
 * An executable for each of the servers: the newest on PATH if it is recent enough, else the one fetched earlier, else
 * one fetched now from the distribution's packages (needs the network this once). Any number of processes may ask at the same time.
 * Throws LocalStackError saying what to install when there is none to be had.
 */
export async function findServers(
  names: readonly ServerName[],
  serversDir: string,
  onProgress: (line: string) => void = () => {},
): Promise<Map<ServerName, Executable>> {
  const found = new Map<ServerName, Executable>();
  const tooOld: string[] = [];
  for (const name of names) {
    const requirement = requirements[name];
    const candidates = (await onPath(requirement)).sort((left, right) => compareVersions(right.version, left.version));
    const executable =
      candidates.find(({ version }) => isAtLeast(version, requirement.minimum)) ?? fetched(requirement, serversDir);
    if (executable !== undefined) found.set(name, executable);
    else tooOld.push(...candidates.map(({ binary, version }) => `${binary} is ${formatVersion(version)}`));
  }
  const missing = names.filter((name) => !found.has(name)).map((name) => requirements[name]);
  if (missing.length === 0) return found;
  if (distribution() === undefined) throw new LocalStackError(whatToInstall(missing, tooOld));
  for (const [name, executable] of await fetchMissing(missing, serversDir, onProgress, tooOld))
    found.set(name, executable);
  return found;
}

async function fetchMissing(
  missing: readonly Requirement[],
  serversDir: string,
  onProgress: (line: string) => void,
  tooOld: readonly string[],
): Promise<Map<ServerName, Executable>> {
  mkdirSync(serversDir, { recursive: true });
  const path = join(serversDir, "lock");
  const deadline = AbortSignal.timeout(FETCH_DEADLINE_MS);
  using _lock = await waitForLock(path, deadline, () =>
    onProgress(`waiting for process ${lockHolder(path) ?? "(unknown)"}, which fetches servers into ${serversDir}`),
  );
  const still = missing.filter((requirement) => fetched(requirement, serversDir) === undefined); // Who held the lock may have brought them.
  if (still.length > 0) {
    try {
      await fetchServers(still, serversDir, onProgress);
    } catch (error) {
      throw new LocalStackError(whatToInstall(still, [...tooOld, reasonOf(error)]));
    }
  }
  return new Map(
    missing.map((requirement) => {
      const executable = fetched(requirement, serversDir);
      if (executable === undefined) throw new LocalStackError(whatToInstall([requirement], tooOld));
      return [requirement.name, executable];
    }),
  );
}

function whatToInstall(missing: readonly Requirement[], findings: readonly string[]): string {
  const wanted = missing
    .map((requirement) => `${requirement.binary} ${minimumText(requirement)} or newer`)
    .join(" and ");
  const urls = missing.map(({ urlVariable }) => urlVariable).join(" and ");
  return [
    `${wanted} not found, and not to be had from this system's packages.`,
    ...findings.flatMap((finding) => finding.split("\n")).map((line) => `  ${line}`),
    `Do one of these:`,
    `  install ${wanted} where PATH finds it (on macOS: brew install nats-server redis)`,
    `  run docker compose -f deploy/compose.yaml up -d, and set ${urls} as that file says`,
    `  set ${urls} to servers that run elsewhere`,
  ].join("\n");
}
