/** Security (aiOS tools, namespace sec): grants, the ledger, certificates. The checks of the host are in secscan.ts. */
import { mkdtemp, readFile, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { isAbsolute, join } from "node:path";
import { putFile } from "../backup.ts";
import type { Row } from "../audit/chain.ts";
import { ToolFailure } from "../failure.ts";
import { look } from "../files/confine.ts";
import { bool, int, list, num, object, path, str } from "../schema.ts";
import { tool, type Call, type Json, type Namespace } from "../tool.ts";
import type { Step } from "../undo.ts";
import { failing, located, restoring } from "./atpath.ts";
import { fileIntegrity, scan, scanRootkits } from "./secscan.ts";

const agent_id = str("", { minLength: 1, maxLength: 256 });
const findings = list(object({ check: str(), severity: str(), description: str(), details: list(str()) }));
/** Where the contract keeps certificates; used when it is inside the roots, else the second, below the first root. */
const CERTIFICATES = "/var/lib/aios/certs";
const OWN_CERTIFICATES = "certs";
const CERTIFICATE_FILES = ["ca.crt", "ca.key", "server.crt", "server.key"] as const;

interface Certified {
  readonly service_name: string;
  readonly cert_dir?: string;
  readonly validity_years?: number;
}

const service_name = str("Name the certificate is for, beside localhost.", {
  minLength: 1,
  maxLength: 253,
  pattern: "^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$",
});

export const sec: Namespace<"sec"> = {
  "sec.check_perms": tool<{ path: string }>({
    about: "Owner and mode of a file anywhere on the host; its content is not read.",
    input: object({ path: path("Absolute path.") }),
    output: object({ owner: str(), group: str(), mode: str("Four octal digits."), writable_by_others: bool() }),
    async run({ path }, call) {
      if (path.includes("\0")) throw new ToolFailure("sec.check_perms: path contains a NUL byte");
      const where = isAbsolute(path) ? path : call.host.files.plain(path);
      const { uid, gid, mode } = await stat(where).catch(failing("sec.check_perms", `failed to check ${path}`));
      const [owner, group] = [await nameOf("/etc/passwd", uid), await nameOf("/etc/group", gid)];
      return {
        owner,
        group,
        mode: (mode & 0o7777).toString(8).padStart(4, "0"),
        writable_by_others: (mode & 0o002) !== 0,
      };
    },
  }),

  "sec.audit_query": tool<{ tool_name?: string; limit: number }>({
    about: "The newest rows of the audit ledger.",
    input: object({ "tool_name?": str(), "limit?": int("", { default: 50, minimum: 0, maximum: 1_000 }) }),
    output: object({ entries: list(object({ tool: str(), agent: str(), success: bool(), timestamp: str() })) }),
    async run({ tool_name, limit }, call) {
      const rows = await call.host.ledger.query(call.tenant, { tool_name, limit: limit === 0 ? 50 : limit });
      return {
        entries: rows.map((row) => ({
          tool: row.tool_name,
          agent: row.agent_id,
          success: row.success,
          timestamp: row.timestamp,
        })),
      };
    },
  }),

  "sec.audit": tool<{ agent_id?: string; tool_name?: string; since?: string; until?: string; limit: number }>({
    about: "Rows of the audit ledger by agent, tool and time (RFC 3339), newest first.",
    input: object({
      "agent_id?": str(),
      "tool_name?": str(),
      "since?": str(),
      "until?": str(),
      "limit?": int("", { default: 100, minimum: 0, maximum: 1_000 }),
    }),
    output: object({
      entries: list(
        object({
          id: int(),
          timestamp: str(),
          agent_id: str(),
          tool_name: str(),
          action: str("execute or rollback"),
          success: bool(),
        }),
      ),
      total: int(),
    }),
    async run({ limit, ...filter }, call) {
      for (const field of ["since", "until"] as const) {
        const given = filter[field];
        if (given !== undefined && given !== "" && Number.isNaN(Date.parse(given)))
          throw new ToolFailure(`sec.audit: ${field} is not a time: ${given}`);
      }
      const rows = await call.host.ledger.query(call.tenant, { ...filter, limit: limit === 0 ? 100 : limit });
      return { entries: rows.map(entry), total: rows.length };
    },
  }),

  "sec.grant": tool<{ agent_id: string; capabilities: string[]; reason: string; duration_hours: number }>({
    about: "Grants an agent capabilities for a time, maybe only below a path: fs_write, fs_write:/srv/*.",
    input: object({
      agent_id,
      capabilities: list(str("", { minLength: 1, maxLength: 512 }), "", { minItems: 1, maxItems: 100 }),
      "reason?": str("", { default: "" }),
      "duration_hours?": num("", { default: 24 }),
    }),
    output: object({ success: bool(), agent_id: str(), granted: list(str()), expires_at: str("RFC 3339") }),
    changes: true,
    prepare: ({ agent_id }, call) => grantsOf(agent_id, call),
    async run({ agent_id, capabilities, reason, duration_hours }, call) {
      const { expiresAt, before, revision } = await call.host.grants.grant(call.tenant, {
        agent: agent_id,
        capabilities,
        reason,
        hours: duration_hours,
        by: call.agent,
      });
      call.undo({ op: "grants", agent: agent_id, before, revision });
      return { success: true, agent_id, granted: capabilities, expires_at: new Date(expiresAt).toISOString() };
    },
  }),

  "sec.revoke": tool<{ agent_id: string; capabilities?: string[]; revoke_all: boolean }>({
    about: "Takes granted capabilities back, some or all. An agent's default set stays.",
    input: object({ agent_id, "capabilities?": list(str()), "revoke_all?": bool("", { default: false }) }),
    output: object({ success: bool(), agent_id: str(), revoked_count: int() }),
    changes: true,
    prepare: ({ agent_id }, call) => grantsOf(agent_id, call),
    async run({ agent_id, capabilities, revoke_all }, call) {
      if (!revoke_all && capabilities === undefined)
        throw new ToolFailure("sec.revoke: name capabilities or set revoke_all");
      const { count, before, revision } = await call.host.grants.revoke(
        call.tenant,
        agent_id,
        revoke_all ? undefined : capabilities,
      );
      call.undo({ op: "grants", agent: agent_id, before, revision });
      return { success: true, agent_id, revoked_count: count };
    },
  }),

  "sec.scan": tool<{ checks?: string[] }>({
    about: "Local checks: open_ports, world_writable, suid_binaries, weak_perms.",
    input: object({ "checks?": list(str()) }),
    output: object({ findings, total_findings: int("All details together."), risk_level: str("Highest severity.") }),
    run: ({ checks }, call) => scan(checks, call),
  }),

  "sec.cert_generate": tool<Certified>({
    about: "Makes a certificate authority and a server certificate for localhost and a service name.",
    input: object({
      service_name,
      "cert_dir?": path("Directory."),
      "validity_years?": int("", { default: 2, minimum: 1, maximum: 30 }),
    }),
    output: object({
      success: bool(),
      ca_cert_path: str(),
      server_cert_path: str(),
      server_key_path: str(),
      expires_year: int(),
    }),
    changes: true,
    paths: ["cert_dir"],
    prepare: (input, call) => certificatesAsTheyAre(input, call),
    async run(input, call) {
      const dir = directoryOf(input, call);
      const years = input.validity_years ?? 2;
      await makeCertificates(input.service_name, dir, years, call);
      return {
        success: true,
        ca_cert_path: join(dir, "ca.crt"),
        server_cert_path: join(dir, "server.crt"),
        server_key_path: join(dir, "server.key"),
        expires_year: new Date(call.host.clock.now()).getUTCFullYear() + years,
      };
    },
  }),

  "sec.cert_rotate": tool<Certified>({
    about: "Keeps the certificates there are as .bak files and makes new ones.",
    input: object({ service_name, "cert_dir?": path("Directory.") }),
    output: object({ success: bool(), backed_up: list(str()), regenerated: bool(), service_name: str() }),
    changes: true,
    paths: ["cert_dir"],
    async prepare(input, call) {
      const dir = directoryOf(input, call);
      const steps: Step[] = [...(await certificatesAsTheyAre(input, call))];
      for (const file of CERTIFICATE_FILES)
        if ((await look(call.host.files, join(dir, file))) !== undefined)
          steps.push(...(await restoring(call.tool, join(dir, `${file}.bak`), call, false)));
      return steps;
    },
    async run(input, call) {
      const dir = directoryOf(input, call);
      const backed_up: string[] = [];
      for (const file of CERTIFICATE_FILES) {
        if ((await look(call.host.files, join(dir, file))) === undefined) continue;
        await using from = await located(call.tool, join(dir, file), call);
        await using to = await located(call.tool, join(dir, `${file}.bak`), call);
        await putFile(to, await readFile(from.at), modeFor(file));
        backed_up.push(to.path);
      }
      await makeCertificates(input.service_name, dir, 2, call);
      return { success: true, backed_up, regenerated: true, service_name: input.service_name };
    },
  }),

  "sec.file_integrity": tool<{ mode: string; paths: string[] }>({
    about:
      "Remembers SHA-256 hashes of files (baseline), or compares with what is remembered (check). No content leaves the host.",
    input: object({
      "mode?": str("", { enum: ["check", "baseline"], default: "check" }),
      "paths?": list(path(""), "", {
        default: ["/etc/aios", "/etc/passwd", "/etc/shadow", "/etc/ssh/sshd_config"],
        maxItems: 1_000,
      }),
    }),
    output: object({
      mode: str(),
      checked: int(),
      modified: list(object({ path: str(), expected: str(), actual: str() })),
      new_files: list(str()),
      missing_files: list(str()),
    }),
    run: ({ mode, paths }, call) => fileIntegrity(mode, paths, call),
  }),

  "sec.scan_rootkits": tool<{ checks?: string[] }>({
    about: "Heuristics: hidden_processes, suspicious_modules, dev_shm_scripts, proc_anomalies.",
    input: object({ "checks?": list(str()) }),
    output: object({ findings, total_findings: int(), clean: bool() }),
    run: ({ checks }, call) => scanRootkits(checks, call),
  }),
};

function entry(row: Row): Json {
  return {
    id: row.id,
    timestamp: row.timestamp,
    agent_id: row.agent_id,
    tool_name: row.tool_name,
    action: row.rollback_of === undefined ? "execute" : "rollback",
    success: row.success,
  };
}

/** An agent's grants as they are now, to be put back. */
async function grantsOf(agent: string, call: Call): Promise<readonly Step[]> {
  const { text, revision } = await call.host.grants.document(call.tenant, agent);
  return [{ op: "grants", agent, before: text, revision }];
}

function directoryOf({ cert_dir }: Certified, call: Call): string {
  const { files } = call.host;
  if (cert_dir !== undefined) return files.plain(cert_dir);
  try {
    return files.plain(CERTIFICATES);
  } catch {
    return files.plain(OWN_CERTIFICATES);
  }
}

async function certificatesAsTheyAre(input: Certified, call: Call): Promise<readonly Step[]> {
  const dir = directoryOf(input, call);
  const parents = await call.host.files.missingParents(join(dir, "ca.crt"));
  const steps: Step[] = parents.length === 0 ? [] : [{ op: "rmdir", paths: parents }];
  for (const file of CERTIFICATE_FILES) {
    steps.push(...(await restoring(call.tool, join(dir, file), call, false)).filter((step) => step.op !== "rmdir"));
  }
  return steps;
}

/** By openssl, in a directory of its own; only finished files reach their place. */
async function makeCertificates(name: string, dir: string, years: number, call: Call): Promise<void> {
  const work = await mkdtemp(join(tmpdir(), "beamline-cert-"));
  const days = String(years * 365);
  const openssl = (args: readonly string[]) =>
    call.host.programs.must("openssl", args, { cwd: work, signal: call.signal });
  const key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
  try {
    await openssl([
      "req",
      "-x509",
      ...key,
      "-keyout",
      "ca.key",
      "-out",
      "ca.crt",
      "-days",
      days,
      "-subj",
      "/CN=Beamline CA",
      "-addext",
      "keyUsage=critical,keyCertSign,cRLSign",
    ]);
    const extensions = [
      `subjectAltName=DNS:localhost,DNS:${name},IP:127.0.0.1`,
      "extendedKeyUsage=serverAuth,clientAuth",
    ].flatMap((each) => ["-addext", each]);
    await openssl([
      "req",
      ...key,
      "-keyout",
      "server.key",
      "-out",
      "server.csr",
      "-subj",
      `/CN=${name}`,
      ...extensions,
    ]);
    await openssl([
      "x509",
      "-req",
      "-in",
      "server.csr",
      "-CA",
      "ca.crt",
      "-CAkey",
      "ca.key",
      "-CAcreateserial",
      "-out",
      "server.crt",
      "-days",
      days,
      "-copy_extensions",
      "copy",
    ]);
    for (const file of CERTIFICATE_FILES) {
      await using place = await located(call.tool, join(dir, file), call, { parents: [] });
      await putFile(place, await readFile(join(work, file)), modeFor(file)).catch(
        failing(call.tool, `failed to write ${file}`),
      );
    }
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

function modeFor(file: string): { mode: number; uid: number; gid: number } {
  return { mode: file.endsWith(".key") ? 0o600 : 0o644, uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0 };
}

/** The name of a user or group, or its number. */
async function nameOf(file: string, id: number): Promise<string> {
  const lines = (await readFile(file, "utf8").catch(() => "")).split("\n").map((line) => line.split(":"));
  return lines.find((fields) => fields[2] === String(id))?.[0] ?? String(id);
}
