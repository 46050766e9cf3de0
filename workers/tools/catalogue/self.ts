/** The product looking at itself (aiOS tools, namespace self). */
import { access, readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { ToolFailure } from "../failure.ts";
import { bool, int, list, num, object, str } from "../schema.ts";
import { tool, type Call, type Namespace } from "../tool.ts";
import { diskUsage } from "./atpath.ts";
import { connects } from "./net.ts";

const source_path = str("Source directory; the configured one when not given.");
/** Where the product's parts listen by default. */
const DISK_FULL = 95;
const DISK_ISSUE = 90;

interface AtSource {
  readonly source_path?: string;
}

export const self: Namespace<"self"> = {
  "self.inspect": tool<AtSource>({
    about: "Version and parts of the product.",
    input: object({ "what?": str("Ignored.", { default: "version" }), "source_path?": source_path }),
    output: object({
      version: str(),
      components: list(object({ name: str(), path: str(), binary_exists: bool() })),
      git_revision: str(),
      git_branch: str(),
      source_path: str(),
    }),
    async run(input, call) {
      const source = sourceOf(input, call);
      const manifest = await readFile(join(source, "package.json"), "utf8").catch(() => "{}");
      const { version = "unknown" } = JSON.parse(manifest) as { version?: string };
      const workers = await readdir(join(source, "workers"), { withFileTypes: true }).catch(() => []);
      const names = ["edge", ...workers.filter((entry) => entry.isDirectory()).map(({ name }) => `workers/${name}`)];
      const components = await Promise.all(
        names.map(async (name) => ({ name, path: join(source, name), binary_exists: await there(join(source, name)) })),
      );
      const [git_revision, git_branch] = [
        await git(source, ["rev-parse", "HEAD"], call),
        await git(source, ["rev-parse", "--abbrev-ref", "HEAD"], call),
      ];
      return { version, components, git_revision, git_branch, source_path: source };
    },
  }),

  "self.health": tool<{ check_services: boolean; check_disk: boolean }>({
    about:
      "Whether the servers this worker uses answer, and the edge where the worker knows its address, and the disk has room.",
    input: object({ "check_services?": bool("", { default: true }), "check_disk?": bool("", { default: true }) }),
    output: object({
      healthy: bool(),
      services: list(object({ name: str(), port: int(), reachable: bool() })),
      disk_ok: bool(),
      disk_usage_percent: num(),
      uptime_seconds: num(),
      issues: list(str()),
    }),
    async run({ check_services, check_disk }, call) {
      const issues: string[] = [];
      const services = check_services
        ? await Promise.all(
            call.host.neighbours().map(async ({ name, host, port }) => ({
              name,
              port,
              reachable: await connects(host, port, call.signal),
            })),
          )
        : [];
      for (const { name, port, reachable } of services)
        if (!reachable) issues.push(`${name} does not answer on port ${port}`);
      const disk = check_disk ? (await diskUsage(call.host.places.data).catch(() => diskUsage("/"))).usage_percent : 0;
      if (disk > DISK_ISSUE) issues.push(`the disk is ${disk} % full`);
      const disk_ok = disk < DISK_FULL;
      return {
        healthy: disk_ok && services.every(({ reachable }) => reachable),
        services,
        disk_ok,
        disk_usage_percent: disk,
        uptime_seconds: Math.round(process.uptime()),
        issues,
      };
    },
  }),

  "self.update": tool<AtSource & { remote: string; branch: string }>({
    about: "Pulls the source directory forward. Off unless the operator allows it.",
    input: object({ "source_path?": source_path, "remote?": word("origin"), "branch?": word("main") }),
    output: object({ success: bool(), previous_rev: str(), current_rev: str(), files_changed: int(), output: str() }),
    changes: true,
    async run({ remote, branch, ...input }, call) {
      const source = changeable(input, call);
      const previous_rev = await git(source, ["rev-parse", "HEAD"], call);
      const output = await call.host.programs.must("git", ["pull", "--ff-only", "--no-rebase", "--", remote, branch], {
        cwd: source,
        signal: call.signal,
        env: { GIT_TERMINAL_PROMPT: "0" },
      });
      const current_rev = await git(source, ["rev-parse", "HEAD"], call);
      const changed =
        previous_rev === current_rev ? "" : await git(source, ["diff", "--name-only", previous_rev, current_rev], call);
      return {
        success: true,
        previous_rev,
        current_rev,
        files_changed: changed.split("\n").filter(Boolean).length,
        output,
      };
    },
  }),

  "self.rebuild": tool<AtSource & { components?: string[]; release: boolean }>({
    about:
      "Builds the source directory with cargo where there is a Cargo.toml, else installs what package-lock.json names. Off unless the operator allows it.",
    input: object({
      "source_path?": source_path,
      "components?": list(str("", { pattern: "^[A-Za-z0-9][A-Za-z0-9_-]*$" })),
      "release?": bool("", { default: true }),
    }),
    output: object({ success: bool(), components_built: list(str()), duration_secs: num(), output: str() }),
    changes: true,
    async run({ components = [], release, ...input }, call) {
      const source = changeable(input, call);
      const started = call.host.clock.monotonic();
      const cargo = await there(join(source, "Cargo.toml"));
      if (!cargo && !(await there(join(source, "package-lock.json"))))
        throw new ToolFailure(`self.rebuild: ${source} has neither Cargo.toml nor package-lock.json`);
      const output = cargo
        ? await call.host.programs.must(
            "cargo",
            ["build", ...(release ? ["--release"] : []), ...components.flatMap((name) => ["--package", name])],
            { cwd: source, signal: call.signal },
          )
        : await call.host.programs.must("npm", ["ci", "--no-audit", "--no-fund"], { cwd: source, signal: call.signal });
      const duration_secs = Math.round((call.host.clock.monotonic() - started) / 10) / 100;
      return {
        success: true,
        components_built: components.length > 0 ? components : ["all"],
        duration_secs,
        output: output.slice(-10_000),
      };
    },
  }),
};

function word(fallback: string) {
  return str("", { default: fallback, minLength: 1, maxLength: 255, pattern: "^[A-Za-z0-9_][A-Za-z0-9_./-]*$" });
}

/** The configured directory; another one only when it is inside the roots. */
function sourceOf({ source_path }: AtSource, call: Call): string {
  const { source } = call.host.places;
  return source_path === undefined || source_path === source ? source : call.host.files.plain(source_path);
}

function changeable(input: AtSource, call: Call): string {
  if (!call.host.mayUpdateItself)
    throw new ToolFailure(`${call.tool}: changing the product is not allowed here (BEAMLINE_TOOLS_SELF_UPDATE)`);
  return sourceOf(input, call);
}

/** Empty when the source directory is no repository, or git is missing. */
async function git(cwd: string, args: readonly string[], call: Call): Promise<string> {
  if ((await call.host.programs.find("git")) === undefined) return "";
  const { code, stdout } = await call.host.programs.run(
    "git",
    ["-c", "safe.directory=*", "-c", "core.fsmonitor=false", ...args],
    { cwd, signal: call.signal },
  );
  return code === 0 ? stdout.trim() : "";
}

function there(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}
