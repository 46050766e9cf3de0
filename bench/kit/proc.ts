/** What the kernel tells of a process: CPU time and memory (Linux, `/proc`). */
import { readFileSync } from "node:fs";
import { availableParallelism, loadavg } from "node:os";

/** `USER_HZ`: the unit of `/proc/<pid>/stat`, a hundredth of a second on every Linux. */
const TICKS_PER_SECOND = 100;

/** CPU seconds of all threads so far, user and system. Throws when the process is gone. */
export function cpuSeconds(pid: number): number {
  const [user, system] = times(pid);
  return (user + system) / TICKS_PER_SECOND;
}

/** CPU seconds of this process's children that have ended and been waited for. */
export function endedChildrenCpuSeconds(): number {
  const [, , user, system] = times("self");
  return (user + system) / TICKS_PER_SECOND;
}

/** utime, stime, cutime, cstime: fields 14 to 17. The name, field 2, may hold spaces, so what follows its bracket is read. */
function times(pid: number | "self"): [number, number, number, number] {
  const text = readFileSync(`/proc/${pid}/stat`, "utf8");
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  const at = (index: number): number => Number(fields[index - 3]);
  return [at(14), at(15), at(16), at(17)];
}

/** CPU seconds the whole machine has spent on something so far, stolen time included. */
export function busySeconds(): number {
  const [line = ""] = readFileSync("/proc/stat", "utf8").split("\n");
  const [user = 0, nice = 0, system = 0, , , irq = 0, softirq = 0, steal = 0] = line.split(/\s+/).slice(1).map(Number);
  return (user + nice + system + irq + softirq + steal) / TICKS_PER_SECOND;
}

/** Resident memory, bytes. */
export function residentBytes(pid: number): number {
  const kib = /^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1];
  return Number(kib ?? 0) * 1024;
}

/** Node's own flags of a running process, as its command line has them. */
export function nodeFlagsOf(pid: number): string[] {
  const [, ...rest] = readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0");
  const end = rest.findIndex((word) => !word.startsWith("-"));
  return rest.slice(0, end);
}

/** The machine, for the result file. */
export function machine(): Readonly<Record<string, string | number>> {
  const model = /^model name\s*:\s*(.*)$/m.exec(readFileSync("/proc/cpuinfo", "utf8"))?.[1] ?? process.arch;
  return {
    cpu: model,
    cores: availableParallelism(),
    load: Number((loadavg()[0] ?? 0).toFixed(2)),
    node: process.version,
  };
}
