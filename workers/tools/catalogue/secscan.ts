/** Looking a host over (aiOS tools, sec.scan, sec.scan_rootkits, sec.file_integrity). Nothing is changed, no content is given away. */
import { lstat, mkdir, readdir, readFile, readlink, rename, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { ToolFailure } from "../failure.ts";
import { hashFile } from "../files/tree.ts";
import type { Call, Json } from "../tool.ts";
import { listeningPorts } from "./sockets.ts";

interface Finding {
  readonly check: string;
  readonly severity: "low" | "medium" | "high" | "critical";
  readonly description: string;
  readonly details: readonly string[];
}

type Check = (call: Call) => Promise<Finding | undefined>;

const SEVERITIES = ["low", "medium", "high", "critical"] as const;
const MAX_DETAILS = 200;
const MAX_FILES = 50_000;
const PROGRAM_DIRECTORIES = ["/usr/bin", "/usr/sbin", "/bin", "/sbin", "/usr/local/bin", "/usr/local/sbin"];
/** Files that only their owner, or only root's group, should read. */
const PRIVATE_FILES: readonly [string, number][] = [
  ["/etc/shadow", 0o037],
  ["/etc/gshadow", 0o037],
  ["/etc/ssh/ssh_host_ed25519_key", 0o077],
  ["/etc/ssh/ssh_host_rsa_key", 0o077],
  ["/etc/sudoers", 0o027],
];
const USUAL_SUID = new Set(
  "su sudo mount umount passwd chsh chfn newgrp gpasswd fusermount fusermount3 pkexec ping crontab ssh-agent expiry chage wall unix_chkpwd doas".split(
    " ",
  ),
);
const BAD_MODULES = new Set("diamorphine reptile suterusu adore-ng knark rkit azazel jynx2 phalanx rootkit".split(" "));

const scans: Readonly<Record<string, Check>> = {
  open_ports: async () =>
    found(
      "open_ports",
      "low",
      "ports open to other machines",
      (await listeningPorts())
        .filter(({ address }) => !/^(127\.|\[0:0:0:0:0:0:0:1\])/.test(address))
        .map(({ details }) => details),
    ),
  world_writable: async (call) =>
    found(
      "world_writable",
      "high",
      "files in /etc that anyone may write",
      await filesBelow("/etc", (mode) => (mode & 0o002) !== 0, call),
    ),
  async suid_binaries(call) {
    const programs = (
      await Promise.all(PROGRAM_DIRECTORIES.map((dir) => filesBelow(dir, (mode) => (mode & 0o6000) !== 0, call, 1)))
    ).flat();
    const unusual = [...new Set(programs)].filter((path) => !USUAL_SUID.has(path.slice(path.lastIndexOf("/") + 1)));
    return found("suid_binaries", "medium", "programs that run as their owner, beyond the usual ones", unusual);
  },
  async weak_perms() {
    const loose: string[] = [];
    for (const [path, forbidden] of PRIVATE_FILES) {
      const mode = (await stat(path).catch(() => undefined))?.mode ?? 0;
      if ((mode & forbidden) !== 0) loose.push(`${path} has mode ${(mode & 0o7777).toString(8)}`);
    }
    return found("weak_perms", "high", "private files that others may read", loose);
  },
};

const rootkits: Readonly<Record<string, Check>> = {
  async hidden_processes({ signal }) {
    const listed = new Set(await readdir("/proc"));
    const highest = Math.max(0, ...[...listed].filter((name) => /^\d+$/.test(name)).map(Number));
    const hidden: string[] = [];
    for (let pid = 1; pid <= Math.min(highest + 256, 65_536); pid++) {
      if (pid % 1024 === 0) signal.throwIfAborted();
      if (listed.has(String(pid))) continue;
      // Threads answer under their own number without being listed; only a leader counts, and only if it is still unlisted now.
      const status = await readFile(`/proc/${pid}/status`, "utf8").catch(() => "");
      if (
        status !== "" &&
        /^Tgid:\s+(\d+)$/m.exec(status)?.[1] === String(pid) &&
        !(await readdir("/proc")).includes(String(pid))
      )
        hidden.push(`process ${pid} answers but is not listed`);
    }
    return found("hidden_processes", "critical", "processes that hide from the list", hidden);
  },
  async suspicious_modules() {
    const modules = (await readFile("/proc/modules", "utf8").catch(() => ""))
      .split("\n")
      .map((line) => line.split(" ")[0] ?? "");
    return found(
      "suspicious_modules",
      "critical",
      "kernel modules known from rootkits",
      modules.filter((name) => BAD_MODULES.has(name.toLowerCase())),
    );
  },
  dev_shm_scripts: async (call) =>
    found(
      "dev_shm_scripts",
      "high",
      "programs and scripts in shared memory",
      await filesBelow("/dev/shm", (mode, path) => (mode & 0o111) !== 0 || /\.(sh|py|pl|elf)$/.test(path), call),
    ),
  async proc_anomalies() {
    const odd: string[] = [];
    for (const pid of (await readdir("/proc")).filter((name) => /^\d+$/.test(name))) {
      const program = await readlink(`/proc/${pid}/exe`).catch(() => "");
      if (/^\/(tmp|dev\/shm|var\/tmp)\//.test(program)) odd.push(`process ${pid} runs ${program}`);
    }
    return found("proc_anomalies", "medium", "processes whose program lies in a temporary directory", odd);
  },
};

/** `sec.scan`. */
export async function scan(checks: readonly string[] | undefined, call: Call): Promise<Json> {
  const findings = await runChecks("sec.scan", scans, checks, call);
  const worst = Math.max(-1, ...findings.map(({ severity }) => SEVERITIES.indexOf(severity)));
  return { findings, total_findings: total(findings), risk_level: SEVERITIES[worst] ?? "low" };
}

/** `sec.scan_rootkits`. */
export async function scanRootkits(checks: readonly string[] | undefined, call: Call): Promise<Json> {
  const findings = await runChecks("sec.scan_rootkits", rootkits, checks, call);
  return { findings, total_findings: total(findings), clean: findings.length === 0 };
}

async function runChecks(
  tool: string,
  known: Readonly<Record<string, Check>>,
  asked: readonly string[] | undefined,
  call: Call,
): Promise<Finding[]> {
  const names = asked === undefined || asked.length === 0 ? Object.keys(known) : asked;
  const findings: Finding[] = [];
  for (const name of names) {
    const check = Object.hasOwn(known, name) ? known[name] : undefined;
    if (check === undefined)
      throw new ToolFailure(`${tool}: unknown check ${name}; there are ${Object.keys(known).join(", ")}`);
    const finding = await check(call);
    if (finding !== undefined) findings.push(finding);
  }
  return findings;
}

function found(
  check: string,
  severity: Finding["severity"],
  description: string,
  details: readonly string[],
): Finding | undefined {
  return details.length === 0 ? undefined : { check, severity, description, details: details.slice(0, MAX_DETAILS) };
}

function total(findings: readonly Finding[]): number {
  return findings.reduce((sum, { details }) => sum + details.length, 0);
}

/** Regular files below a directory whose mode fits; links are not followed. */
async function filesBelow(
  directory: string,
  fits: (mode: number, path: string) => boolean,
  call: Call,
  levels = 6,
): Promise<string[]> {
  const fitting: string[] = [];
  const visit = async (dir: string, left: number): Promise<void> => {
    call.signal.throwIfAborted();
    for (const item of await readdir(dir, { withFileTypes: true }).catch(() => [])) {
      const path = join(dir, item.name);
      if (item.isDirectory() && left > 1) await visit(path, left - 1);
      else if (item.isFile()) {
        const mode = (await lstat(path).catch(() => undefined))?.mode;
        if (mode !== undefined && fits(mode, path)) fitting.push(path);
      }
      if (fitting.length >= MAX_FILES) return;
    }
  };
  await visit(directory, levels);
  return fitting;
}

/** `sec.file_integrity`. The baseline belongs to this host, so it is kept on it. */
export async function fileIntegrity(mode: string, paths: readonly string[], call: Call): Promise<Json> {
  for (const path of paths)
    if (path.includes("\0") || !path.startsWith("/"))
      throw new ToolFailure(`sec.file_integrity: ${JSON.stringify(path)} is not an absolute path`);
  const file = join(call.host.places.data, `integrity-${Buffer.from(call.tenant).toString("base64url")}.json`);
  const now = await hashes(paths, call);
  const known = JSON.parse(await readFile(file, "utf8").catch(() => "{}")) as Record<string, string>;
  if (mode === "baseline") {
    const merged = {
      ...Object.fromEntries(Object.entries(known).filter(([path]) => !covered(path, paths))),
      ...Object.fromEntries(now),
    };
    await mkdir(call.host.places.data, { recursive: true });
    const beside = `${file}.${call.executionId}`;
    await writeFile(beside, JSON.stringify(merged), { mode: 0o600 });
    await rename(beside, file);
    return { mode, checked: now.size, modified: [], new_files: [], missing_files: [] };
  }
  const modified = [...now].flatMap(([path, actual]) => {
    const expected = known[path];
    return expected === undefined || expected === actual ? [] : [{ path, expected, actual }];
  });
  const new_files = [...now.keys()].filter((path) => known[path] === undefined);
  const missing_files = Object.keys(known).filter((path) => covered(path, paths) && !now.has(path));
  return { mode, checked: now.size, modified, new_files, missing_files };
}

async function hashes(paths: readonly string[], call: Call): Promise<Map<string, string>> {
  const all = new Map<string, string>();
  for (const path of paths) {
    const stats = await lstat(path).catch(() => undefined);
    const files =
      stats?.isDirectory() === true ? await filesBelow(path, () => true, call) : stats?.isFile() === true ? [path] : [];
    for (const file of files) all.set(file, await hashFile(file, call.signal).catch(() => "unreadable"));
  }
  return all;
}

function covered(path: string, paths: readonly string[]): boolean {
  return paths.some((each) => path === each || path.startsWith(`${each}/`));
}
