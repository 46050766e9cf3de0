import { mkdirSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { baseSuite, configuredSources, sourcesFile } from "./apt-sources.ts";
import type { AptSource } from "./apt-sources.ts";
import { run } from "./run.ts";

// A1 Nothing of the system is written: lists, cache and sources are the caller's directory, and no package is installed, only unpacked.
// A2 Everything comes signed: apt refuses unsigned lists, and packages whose hash is not in a signed list.
// A3 Hosts and keys are the ones this machine's administrator configured; the machine's proxies and credentials stay in force.

/** A set of sources to look into, most settled first. */
export interface Round {
  readonly label: string;
  readonly sources: readonly AptSource[];
}

/** Which distribution this is, and what it calls its next release. Undefined when it is neither Debian nor Ubuntu nor one of theirs. */
export function distribution(
  osRelease = "/etc/os-release",
): { codename: string; next: string; keyring: string } | undefined {
  let text: string;
  try {
    text = readFileSync(osRelease, "utf8");
  } catch {
    return undefined;
  }
  const value = (key: string) => new RegExp(`^${key}="?(.*?)"?$`, "m").exec(text)?.[1] ?? "";
  const family = `${value("ID")} ${value("ID_LIKE")}`.split(/\s+/);
  const ubuntu = family.includes("ubuntu");
  if (!ubuntu && !family.includes("debian")) return undefined;
  const name = ubuntu ? "ubuntu" : "debian";
  return {
    codename: value("UBUNTU_CODENAME") || value("VERSION_CODENAME"),
    next: ubuntu ? "devel" : "testing",
    keyring: `/usr/share/keyrings/${name}-archive-keyring.gpg`,
  };
}

/**
 * Where to look: first the distribution's own suites as configured, then its next release at the same address, for what the
 * stable one has only in an older version. Other publishers' sources are left out.
 */
export function rounds(etc?: string, osRelease?: string): Round[] {
  const distro = distribution(osRelease);
  if (distro === undefined) return [];
  const own = configuredSources(etc)
    .filter(({ components, signedBy }) => components.includes("main") && isArchiveKey(signedBy))
    .filter(({ suite }) =>
      [distro.codename, "stable", "testing", "unstable", "sid", "devel"].includes(baseSuite(suite)),
    )
    .map((source) => Object.assign({ signedBy: distro.keyring }, source));
  const mirrors = new Map(own.filter(({ suite }) => baseSuite(suite) === suite).map((source) => [source.uri, source]));
  const next = [...mirrors.values()].map((source) => ({
    label: `${distro.next} at ${source.uri}`,
    sources: [{ ...source, suite: distro.next }],
  }));
  return own.length === 0 ? [] : [{ label: "the configured suites", sources: own }, ...next];
}

function isArchiveKey(signedBy: string | undefined): boolean {
  return signedBy === undefined || /(debian|ubuntu)-archive/.test(signedBy) || signedBy.includes("BEGIN PGP");
}

/** apt, confined to one directory. */
export interface Apt {
  /**
   * Makes the sources the only ones and reads their package lists. Throws when a signature is wrong; lists that cannot be reached are left
   * out, and returned as apt's own warnings.
   */
  update(sources: readonly AptSource[]): Promise<string>;
  /** Versions of a package that can be had, newest first. */
  versions(name: string): Promise<string[]>;
  /** Downloads packages (`name` or `name=version`), verified, and returns their files. */
  download(packages: readonly string[]): Promise<string[]>;
}

/** Prepares apt in an empty directory. Works for any user: nothing needs root. */
export function openApt(directory: string): Apt {
  const at = (name: string) => join(directory, name);
  for (const name of ["state/lists/partial", "cache/archives/partial"]) mkdirSync(at(name), { recursive: true });
  writeFileSync(at("apt.conf"), confinement(directory));
  const config = ["-c", at("apt.conf")];
  const env = { ...process.env, LC_ALL: "C" };
  let downloads = 0;
  return {
    async update(sources) {
      writeFileSync(at("beamline.sources"), sourcesFile(sources));
      return (await run("apt-get", [...config, "-q", "update"], { env, timeoutMs: 300_000 })).stderr.trim();
    },
    async versions(name) {
      const { stdout } = await run("apt-cache", [...config, "madison", name], { env, timeoutMs: 60_000 });
      return stdout.split("\n").flatMap((line) => line.split("|")[1]?.trim() ?? []);
    },
    async download(packages) {
      const cwd = at(`download-${++downloads}`);
      mkdirSync(cwd);
      await run("apt-get", [...config, "-q", "download", ...packages], { cwd, env, timeoutMs: 300_000 });
      return readdirSync(cwd)
        .filter((name) => name.endsWith(".deb"))
        .map((name) => join(cwd, name));
    },
  };
}

/** Settings that keep apt inside `directory`. The machine's own are read first, so its hooks have to be taken out by name. */
function confinement(directory: string): string {
  const path = (name: string) => JSON.stringify(join(directory, name));
  return `#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
Dir::State ${path("state")};
Dir::State::lists "lists/";
Dir::Cache ${path("cache")};
Dir::Cache::archives "archives/";
Dir::Cache::pkgcache "pkgcache.bin";
Dir::Cache::srcpkgcache "";
Dir::Etc::sourcelist ${path("beamline.sources")};
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
APT::Sandbox::User "";
Acquire::Languages "none";
Acquire::Retries "2";
Acquire::http::Timeout "30";
Acquire::https::Timeout "30";
Acquire::AllowInsecureRepositories "false";
Acquire::AllowDowngradeToInsecureRepositories "false";
Acquire::AllowWeakRepositories "false";
APT::Get::AllowUnauthenticated "false";
`;
}
