/** How the host is doing (aiOS tools, namespace monitor). Some fields are given twice, under the names existing agents read. */
import { readdir, readFile, readlink } from "node:fs/promises";
import { cpus, loadavg } from "node:os";
import { missing, ToolFailure } from "../failure.ts";
import { walk } from "../files/tree.ts";
import { bool, int, list, num, object, path, str } from "../schema.ts";
import { tool, type Namespace } from "../tool.ts";
import { diskUsage, failing, located } from "./atpath.ts";
import { listeningPorts } from "./sockets.ts";
import { listProcesses } from "./process.ts";

const SAMPLE_MS = 100;
const MIB = 1024 * 1024;
const GIB = 1024 * MIB;
const LOG_FILES = ["/var/log/syslog", "/var/log/messages"];
const LOG_TAIL_BYTES = 4 * MIB;
const LOOK_MS = 200;
const MAX_EVENTS = 1_000;

const round = (value: number, digits = 2): number => Math.round(value * 10 ** digits) / 10 ** digits;

export const monitor: Namespace<"monitor"> = {
  "monitor.cpu": tool({
    about: "Use of the processors over a tenth of a second, and load averages.",
    input: object(),
    output: object({ percent: num(), cpu_percent: num("The same."), cores: int(), load_avg: list(num()) }),
    async run(_input, { host, signal }) {
      const before = times();
      await host.clock.sleep(SAMPLE_MS, signal);
      const after = times();
      const total = after.total - before.total;
      const percent = total <= 0 ? 0 : round((1 - (after.idle - before.idle) / total) * 100);
      return { percent, cpu_percent: percent, cores: cpus().length, load_avg: loadavg() };
    },
  }),

  "monitor.memory": tool({
    about: "Main memory, in MiB.",
    input: object(),
    output: object({
      total_mb: int(),
      used_mb: int(),
      available_mb: int(),
      percent: num(),
      used_percent: num("The same."),
    }),
    async run() {
      const text = await readFile("/proc/meminfo", "utf8").catch(() => {
        throw missing("/proc/meminfo");
      });
      const kib = (key: string): number => Number(new RegExp(`^${key}:\\s+(\\d+)`, "m").exec(text)?.[1] ?? 0);
      const [total, available] = [kib("MemTotal"), kib("MemAvailable")];
      const percent = total === 0 ? 0 : round(((total - available) / total) * 100);
      const mb = (value: number): number => Math.floor(value / 1024);
      return {
        total_mb: mb(total),
        used_mb: mb(total - available),
        available_mb: mb(available),
        percent,
        used_percent: percent,
      };
    },
  }),

  "monitor.disk": tool<{ path: string }>({
    about: "Use of the file system a path is on, in GiB.",
    input: object({ "path?": str("", { default: "/" }) }),
    output: object({
      total_gb: num(),
      used_gb: num(),
      available_gb: num(),
      percent: num(),
      used_percent: num("The same."),
    }),
    async run({ path }) {
      const usage = await diskUsage(path).catch(failing("monitor.disk", `failed to look at ${path}`));
      const gb = (bytes: number): number => round(bytes / GIB);
      const percent = usage.usage_percent;
      return {
        total_gb: gb(usage.total_bytes),
        used_gb: gb(usage.used_bytes),
        available_gb: gb(usage.available_bytes),
        percent,
        used_percent: percent,
      };
    },
  }),

  "monitor.network": tool<{ interface?: string }>({
    about: "Counters of one interface; the first that is not the loopback when none is named.",
    input: object({ "interface?": str("", { pattern: "^[A-Za-z0-9_.:@-]{1,32}$" }) }),
    output: object({ rx_bytes: int(), tx_bytes: int(), rx_packets: int(), tx_packets: int() }),
    async run(input) {
      const names = (await readdir("/sys/class/net").catch((): string[] => [])).sort();
      const name = input.interface ?? names.find((each) => each !== "lo") ?? "lo";
      if (!names.includes(name)) throw new ToolFailure(`monitor.network: there is no interface ${name}`);
      const read = async (counter: string): Promise<number> =>
        Number((await readFile(`/sys/class/net/${name}/statistics/${counter}`, "utf8")).trim());
      const [rx_bytes, tx_bytes, rx_packets, tx_packets] = await Promise.all(
        ["rx_bytes", "tx_bytes", "rx_packets", "tx_packets"].map(read),
      );
      return { rx_bytes, tx_bytes, rx_packets, tx_packets };
    },
  }),

  "monitor.logs": tool<{ lines: number; service?: string }>({
    about: "The last lines of the journal, or of the system's log file where there is none.",
    input: object({
      "lines?": int("", { default: 100, minimum: 1, maximum: 10_000 }),
      "service?": str("Unit of systemd.", { pattern: "^[A-Za-z0-9_@][A-Za-z0-9:_.@-]{0,254}$" }),
    }),
    output: object({ entries: list(str()) }),
    async run({ lines, service }, call) {
      const { programs } = call.host;
      if ((await programs.find("journalctl")) !== undefined) {
        const args = [
          "--no-pager",
          "--quiet",
          "--output=short-iso",
          `--lines=${lines}`,
          ...(service === undefined ? [] : [`--unit=${service}`]),
        ];
        const { code, stdout } = await programs.run("journalctl", args, { signal: call.signal, maxBytes: 1024 * 1024 });
        const entries = stdout.split("\n").filter((line) => line !== "");
        if (code === 0 && (entries.length > 0 || service !== undefined)) return { entries };
      }
      for (const file of LOG_FILES) {
        const text = await tail(file).catch(() => undefined);
        if (text === undefined) continue;
        const fitting = text
          .split("\n")
          .filter((line) => line !== "" && (service === undefined || line.includes(service)));
        return { entries: fitting.slice(-lines) };
      }
      if ((await programs.find("journalctl")) !== undefined) return { entries: [] };
      throw missing("a system log", `neither journalctl nor ${LOG_FILES.join(" or ")}`);
    },
  }),

  "monitor.ebpf_trace": tool<{ trace_type: string; duration_secs: number; pid?: number }>({
    about: "Watches /proc for a while for processes started, files opened or connections made.",
    input: object({
      "trace_type?": str("", {
        enum: ["process_spawns", "file_opens", "network_connections"],
        default: "process_spawns",
      }),
      "duration_secs?": int("", { default: 5, minimum: 1, maximum: 25 }),
      "pid?": int("Only this process.", { minimum: 1 }),
    }),
    output: object({
      trace_type: str(),
      events: list(object({ pid: int(), event: str(), details: str(), timestamp: str() })),
      duration_secs: int(),
      method: str(),
    }),
    async run({ trace_type, duration_secs, pid }, { host, signal }) {
      const seen = await glimpse(trace_type, pid);
      const events: { pid: number; event: string; details: string; timestamp: string }[] = [];
      for (
        const end = host.clock.monotonic() + duration_secs * 1000;
        host.clock.monotonic() < end && events.length < MAX_EVENTS;
      ) {
        await host.clock.sleep(LOOK_MS, signal);
        for (const [key, thing] of await glimpse(trace_type, pid)) {
          if (seen.has(key)) continue;
          seen.set(key, thing);
          events.push({
            pid: thing.pid,
            event: trace_type.replace(/s$/, ""),
            details: thing.details,
            timestamp: new Date(host.clock.now()).toISOString(),
          });
        }
      }
      return { trace_type, events: events.slice(0, MAX_EVENTS), duration_secs, method: "proc_fallback" };
    },
  }),

  "monitor.fs_watch": tool<{ path: string; recursive: boolean; since_timestamp: number }>({
    about: "Files changed since a moment, newest first: at most 100, at most 5 levels deep.",
    input: object({
      path: path("Directory."),
      "recursive?": bool("", { default: true }),
      "since_timestamp?": int("Unix seconds.", { default: 0 }),
    }),
    output: object({
      path: str(),
      events: list(object({ path: str(), event_type: str(), modified_at: str(), size: int() })),
      total_events: int(),
    }),
    paths: ["path"],
    async run({ path, recursive, since_timestamp }, call) {
      await using place = await located("monitor.fs_watch", path, call, { follow: true, git: "inside" });
      const found: { path: string; at: number; size: number }[] = [];
      await walk(
        place.at,
        async ({ below, stats }) => {
          const at = Number(stats.mtimeMs);
          if (stats.isFile() && at >= since_timestamp * 1000)
            found.push({ path: `${place.path}/${below}`, at, size: Number(stats.size) });
        },
        { maxDepth: recursive ? 5 : 1, signal: call.signal, lenient: true },
      );
      const newest = found.sort((a, b) => b.at - a.at).slice(0, 100);
      const events = newest.map(({ path, at, size }) => ({
        path,
        event_type: "modified",
        modified_at: new Date(at).toISOString(),
        size,
      }));
      return { path, events, total_events: events.length };
    },
  }),
};

function times(): { idle: number; total: number } {
  let [idle, total] = [0, 0];
  for (const { times } of cpus()) {
    idle += times.idle;
    total += times.user + times.nice + times.sys + times.idle + times.irq;
  }
  return { idle, total };
}

async function tail(file: string): Promise<string> {
  const text = await readFile(file, "utf8");
  return text.slice(-LOG_TAIL_BYTES);
}

/** What is there to be seen now, by a key that tells one thing from another. */
async function glimpse(kind: string, only: number | undefined): Promise<Map<string, { pid: number; details: string }>> {
  const seen = new Map<string, { pid: number; details: string }>();
  if (kind === "network_connections") {
    for (const { key, details } of await listeningPorts(false)) seen.set(key, { pid: only ?? 0, details });
    return seen;
  }
  for (const { pid, name } of await listProcesses()) {
    if (only !== undefined && pid !== only) continue;
    if (kind === "process_spawns") seen.set(String(pid), { pid, details: name });
    else {
      for (const fd of await readdir(`/proc/${pid}/fd`).catch(() => [])) {
        const target = await readlink(`/proc/${pid}/fd/${fd}`).catch(() => "");
        if (target.startsWith("/")) seen.set(`${pid} ${target}`, { pid, details: target });
      }
    }
  }
  return seen;
}
