import { mkdirSync, mkdtempSync, readdirSync, realpathSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join, relative } from "node:path";
import { openApt, rounds } from "./apt.ts";
import type { Apt, Round } from "./apt.ts";
import { LocalStackError, reasonOf } from "./failure.ts";
import { libraryPath, manifestFile, versionOf } from "./installed.ts";
import type { Manifest } from "./installed.ts";
import { minimumText } from "./requirements.ts";
import type { Requirement } from "./requirements.ts";
import { run } from "./run.ts";
import { formatVersion, isAtLeast, parseVersion } from "./version.ts";

/**
 * Takes servers from the distribution's packages and unpacks them below `serversDir`, one directory each, put in place whole
 * (`nats-server-2.15.1/`). Call it with the directory's lock held.
 * Throws LocalStackError with every reason when one of them cannot be had.
 */
export async function fetchServers(
  needed: readonly Requirement[],
  serversDir: string,
  onProgress: (line: string) => void,
): Promise<void> {
  const places = rounds();
  if (places.length === 0) throw new LocalStackError("this machine's apt names no suite of Debian or Ubuntu itself");
  // What a fetch that was killed left behind.
  for (const name of readdirSync(serversDir))
    if (name.startsWith(".fetch-")) rmSync(join(serversDir, name), { recursive: true, force: true });
  const scratch = mkdtempSync(join(serversDir, ".fetch-"));
  try {
    const apt = openApt(scratch);
    const missing = new Set(needed);
    const failures: string[] = [];
    for (const place of places) {
      for (const problem of await fetchFrom(place, apt, missing, scratch, serversDir, onProgress)) {
        failures.push(`${place.label}: ${problem}`);
      }
      if (missing.size === 0) return;
    }
    throw new LocalStackError(failures.join("\n"));
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

/** Takes what one place has of the missing servers, strikes it off, and returns why the rest is still missing. */
async function fetchFrom(
  place: Round,
  apt: Apt,
  missing: Set<Requirement>,
  scratch: string,
  serversDir: string,
  onProgress: (line: string) => void,
): Promise<string[]> {
  const names = [...missing].map(({ debianPackage }) => debianPackage).join(" and ");
  onProgress(`looking for ${names} in ${place.label}`);
  let warnings: string;
  try {
    warnings = await apt.update(place.sources);
  } catch (error) {
    return [reasonOf(error)];
  }
  const problems: string[] = [];
  for (const requirement of missing) {
    try {
      const packageVersion = await newest(apt, requirement);
      onProgress(`fetching ${requirement.debianPackage} ${packageVersion}`);
      await unpackServer(apt, requirement, packageVersion, scratch, serversDir);
      missing.delete(requirement);
    } catch (error) {
      problems.push(reasonOf(error));
    }
  }
  return warnings === "" ? problems : [...problems, warnings];
}

async function newest(apt: Apt, requirement: Requirement): Promise<string> {
  const versions = await apt.versions(requirement.debianPackage);
  const found = versions.find((version) => isAtLeast(parseVersion(version), requirement.minimum));
  if (found !== undefined) return found;
  const has = versions.length === 0 ? "no package" : versions.join(", ");
  throw new Error(`${requirement.debianPackage} ${minimumText(requirement)} or newer is needed, it has ${has}`);
}

async function unpackServer(
  apt: Apt,
  requirement: Requirement,
  packageVersion: string,
  scratch: string,
  serversDir: string,
): Promise<void> {
  const root = join(scratch, requirement.binary);
  mkdirSync(root);
  const taken = new Set([requirement.debianPackage]);
  let wanted = [`${requirement.debianPackage}=${packageVersion}`];
  // Libraries the machine already has are used as they are; the others are added level by level, until nothing is missing.
  for (;;) {
    const files = await apt.download(wanted);
    for (const file of files) await run("dpkg-deb", ["-x", file, root], { timeoutMs: 60_000 });
    const lacking = await lacks(root, requirement);
    if (lacking === undefined) break;
    wanted = await dependencies(files, taken);
    if (wanted.length === 0) throw new Error(`${requirement.binary} ${packageVersion} cannot run here: ${lacking}`);
    for (const name of wanted) taken.add(name);
  }
  const binary = locate(root, requirement.binary) ?? "";
  const libraries = libraryDirectories(root);
  const version = await versionOf(binary, libraries);
  if (!isAtLeast(version, requirement.minimum))
    throw new Error(`${requirement.binary} ${packageVersion} does not run here`);
  const manifest: Manifest = {
    name: requirement.binary,
    version: formatVersion(version),
    platform: `${process.platform}-${process.arch}`,
    binary: relative(root, binary),
    libraries: libraries.map((directory) => relative(root, directory)),
    package: `${requirement.debianPackage} ${packageVersion}`,
  };
  writeFileSync(join(root, manifestFile), `${JSON.stringify(manifest, null, 2)}\n`);
  const target = join(serversDir, `${requirement.binary}-${manifest.version}`);
  rmSync(target, { recursive: true, force: true }); // One that could not be used, else it would not be fetched.
  renameSync(root, target);
}

/** What keeps the unpacked server from running: the first missing piece, or undefined when nothing is missing. */
async function lacks(root: string, requirement: Requirement): Promise<string | undefined> {
  const binary = locate(root, requirement.binary);
  if (binary === undefined) return `no ${requirement.binary} in the package`;
  try {
    const { stdout } = await run("ldd", [binary], {
      env: { ...process.env, ...libraryPath(libraryDirectories(root)) },
    });
    return stdout
      .split("\n")
      .find((line) => line.includes("not found"))
      ?.trim();
  } catch {
    return undefined; // Linked statically, or no ldd: its version is asked for next, and that tells.
  }
}

/** Names of the packages these depend on that are neither installed nor taken already. */
async function dependencies(files: readonly string[], taken: ReadonlySet<string>): Promise<string[]> {
  const names = new Set<string>();
  for (const file of files) {
    const { stdout } = await run("dpkg-deb", ["-f", file, "Depends", "Pre-Depends"]);
    for (const group of stdout.replaceAll(/^(Pre-)?Depends:/gm, ",").split(",")) {
      const name = /^\s*([a-z0-9][a-z0-9.+-]+)/.exec(group)?.[1];
      if (name !== undefined && /^(lib|redis|valkey)/.test(name) && !taken.has(name) && !(await isInstalled(name)))
        names.add(name);
    }
  }
  return [...names];
}

async function isInstalled(name: string): Promise<boolean> {
  try {
    return (await run("dpkg-query", ["-W", "-f", "${db:Status-Status}", name])).stdout.startsWith("installed");
  } catch {
    return false;
  }
}

/** The real file behind the executable; undefined while a package that holds it is still missing (it may be a link into another one). */
function locate(root: string, binary: string): string | undefined {
  for (const directory of ["usr/bin", "usr/sbin", "bin", "sbin"]) {
    const path = join(root, directory, binary);
    try {
      realpathSync(path);
      return path;
    } catch {
      continue;
    }
  }
  return undefined;
}

function libraryDirectories(root: string): string[] {
  const found = new Set<string>();
  for (const top of ["lib", "usr/lib"]) {
    for (const name of list(join(root, top))) if (/\.so(\.|$)/.test(name)) found.add(join(root, top, name, ".."));
  }
  return [...found];
}

function list(directory: string): string[] {
  try {
    return readdirSync(directory, { recursive: true, encoding: "utf8" });
  } catch {
    return [];
  }
}
