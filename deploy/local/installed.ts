import { accessSync, constants, readFileSync, readdirSync } from "node:fs";
import { delimiter, join } from "node:path";
import type { Requirement } from "./requirements.ts";
import { run } from "./run.ts";
import { compareVersions, isAtLeast, parseVersion } from "./version.ts";
import type { Version } from "./version.ts";

/** An executable that can be started. */
export interface Executable {
  readonly binary: string;
  readonly version: Version;
  /** Directories with libraries it needs beside the system's. */
  readonly libraries: readonly string[];
}

/** What is written beside a fetched server, as the last thing: a directory without it is no server. */
export interface Manifest {
  readonly name: string;
  readonly version: string;
  /** `linux-x64`: a directory shared between machines may hold what this one cannot run. */
  readonly platform: string;
  /** Relative to the manifest. */
  readonly binary: string;
  readonly libraries: readonly string[];
  /** The package it came from, with its version. */
  readonly package: string;
}

/** File name of the manifest. */
export const manifestFile = "server.json";

/**
 * Executables of this name on PATH and in the system directories an ordinary user's PATH leaves out, each asked for its version. One that does
 * not run is left out.
 */
export async function onPath(requirement: Requirement, path = process.env["PATH"] ?? ""): Promise<Executable[]> {
  const directories = new Set([...path.split(delimiter), "/usr/local/bin", "/usr/local/sbin", "/usr/sbin"]);
  const found: Executable[] = [];
  for (const directory of directories) {
    const binary = join(directory, requirement.binary);
    if (directory === "" || !isExecutable(binary)) continue;
    const version = await versionOf(binary, []);
    if (version !== undefined) found.push({ binary, version, libraries: [] });
  }
  return found;
}

/** The newest server of this name fetched earlier that this machine can run and that is recent enough. */
export function fetched(requirement: Requirement, serversDir: string): Executable | undefined {
  const usable = list(serversDir)
    .filter((name) => name.startsWith(`${requirement.binary}-`))
    .flatMap((name) => readManifest(join(serversDir, name)) ?? [])
    .filter(({ version }) => isAtLeast(version, requirement.minimum));
  return usable.sort((left, right) => compareVersions(right.version, left.version))[0];
}

/** What `--version` says, or undefined when it does not run. */
export async function versionOf(binary: string, libraries: readonly string[]): Promise<Version | undefined> {
  const env = { ...process.env, ...libraryPath(libraries) };
  try {
    return parseVersion((await run(binary, ["--version"], { env })).stdout);
  } catch {
    return undefined;
  }
}

function readManifest(directory: string): Executable | undefined {
  try {
    const manifest: unknown = JSON.parse(readFileSync(join(directory, manifestFile), "utf8"));
    if (!isManifest(manifest) || manifest.platform !== `${process.platform}-${process.arch}`) return undefined;
    const version = parseVersion(manifest.version);
    const binary = join(directory, manifest.binary);
    if (version === undefined || !isExecutable(binary)) return undefined;
    return { binary, version, libraries: manifest.libraries.map((name) => join(directory, name)) };
  } catch {
    return undefined;
  }
}

function isManifest(value: unknown): value is Manifest {
  if (typeof value !== "object" || value === null) return false;
  const held = new Map<string, unknown>(Object.entries(value));
  const libraries = held.get("libraries");
  return (
    ["name", "version", "platform", "binary", "package"].every((key) => typeof held.get(key) === "string") &&
    Array.isArray(libraries) &&
    libraries.every((entry) => typeof entry === "string")
  );
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

function list(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch {
    return [];
  }
}

/** `LD_LIBRARY_PATH` for these directories, or nothing. */
export function libraryPath(directories: readonly string[]): Record<string, string> {
  return directories.length === 0 ? {} : { LD_LIBRARY_PATH: directories.join(delimiter) };
}
