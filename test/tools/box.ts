/**
 * For tests: a machine in a box, for tools that change the machine itself. Namespaces of its own for mounts, processes, network, control
 * groups and host name; what is written below /usr, /etc and /var goes to memory; systemd, where there is one, is its first process.
 * Nothing in it reaches the machine outside. Needs root on Linux.
 */
import { execFile, spawn, type ChildProcess } from "node:child_process";
import { constants } from "node:fs";
import { access, chmod, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { fetchServers } from "../../deploy/local/fetch.ts";
import { serversDirectory } from "../../deploy/local/find.ts";
import { fetched, onPath } from "../../deploy/local/installed.ts";
import { waitForLock } from "../../deploy/local/lock.ts";
import { requirements } from "../../deploy/local/requirements.ts";
import { until } from "../kit/until.ts";

const run = promisify(execFile);
const SYSTEMD = "/lib/systemd/systemd";
const NAMESPACES = ["--mount", "--pid", "--net", "--uts", "--ipc", "--fork", "--kill-child"];

/** What a box has, beside mounts and processes of its own. */
export interface Box extends AsyncDisposable {
  /** Runs a script of this folder inside, with the given programs on PATH; gives what it printed. Throws with what it complained about. */
  script(name: string, args: readonly string[]): Promise<string>;
}

/** Why there can be no box here; undefined when there can. */
export async function noBox(): Promise<string | undefined> {
  if (process.getuid?.() !== 0) return "needs root";
  const needed = [
    "mount -t tmpfs tmpfs /mnt && mkdir /mnt/u /mnt/w",
    "mount -t overlay overlay -o lowerdir=/usr,upperdir=/mnt/u,workdir=/mnt/w /usr",
    "mount -t cgroup2 cgroup2 /sys/fs/cgroup && ip link set lo up",
    "setpriv --version && nsenter --version",
  ];
  return run("unshare", [...NAMESPACES, "sh", "-c", needed.join(" && ")]).then(
    () => undefined,
    () => "no namespaces, overlays or control groups of one's own",
  );
}

export const hasSystemd = (): Promise<boolean> => there(SYSTEMD);
export const hasApt = async (): Promise<boolean> => (await there("/usr/bin/apt-get")) && there("/usr/bin/dpkg-deb");

function there(path: string): Promise<boolean> {
  return access(path, constants.X_OK).then(
    () => true,
    () => false,
  );
}

/** Programs by name, as a box takes them. */
export type Programs = Readonly<Record<string, { readonly binary: string; readonly libraries: readonly string[] }>>;

/**
 * Programs of this machine, or unpacked from the distribution's packages below the servers' directory (which needs the network once);
 * undefined when one of them cannot be had. @param packages names of the packages by program
 */
export async function programs(packages: Readonly<Record<string, string>>): Promise<Programs | undefined> {
  // Found and fetched as the servers of the local stack are; only the names differ.
  const wanted = Object.entries(packages).map(([binary, debianPackage]) => {
    return { ...requirements.nats, binary, debianPackage, minimum: [0, 0, 1] as const };
  });
  const directory = serversDirectory();
  await mkdir(directory, { recursive: true });
  const find = async (one: (typeof wanted)[number]) => {
    const [installed] = await onPath(one, "/usr/sbin:/usr/bin:/sbin:/bin");
    return installed ?? fetched(one, directory);
  };
  const lacking = [];
  for (const one of wanted) if ((await find(one)) === undefined) lacking.push(one);
  try {
    if (lacking.length > 0) {
      using _lock = await waitForLock(join(directory, "lock"), AbortSignal.timeout(300_000), () => undefined);
      await fetchServers(lacking, directory, () => undefined);
    }
  } catch {
    return undefined;
  }
  const found = await Promise.all(wanted.map(async (one) => [one.binary, await find(one)] as const));
  return Object.fromEntries(found.flatMap(([name, where]) => (where === undefined ? [] : [[name, where]])));
}

/** Starts a box. @param programs by name, put on PATH inside */
export async function startBox(programs: Programs): Promise<Box> {
  const directory = await mkdtemp(join(tmpdir(), "beamline-box-"));
  const bin = join(directory, "bin");
  await mkdir(bin);
  for (const [name, { binary, libraries }] of Object.entries(programs)) {
    const script = `#!/bin/sh\nLD_LIBRARY_PATH="${libraries.join(":")}" exec "${binary}" "$@"\n`;
    await writeFile(join(bin, name), script);
    await chmod(join(bin, name), 0o755);
  }
  const boot = fileURLToPath(new URL("boot.sh", import.meta.url));
  const child = spawn("setpriv", ["--pdeathsig", "KILL", "unshare", ...NAMESPACES, "sh", boot, directory], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  let said = "";
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (chunk: Buffer) => (said += chunk.toString()));
  const inside = (command: string, args: readonly string[]) => {
    const env = {
      PATH: `${bin}:${process.env["PATH"] ?? ""}`,
      HOME: "/root",
      BEAMLINE_SERVERS_DIR: serversDirectory(),
    };
    const enter = ["--target", String(first), "--mount", "--pid", "--net", "--uts", "--ipc"];
    // Into a control group of the box first: from inside it could not be reached any more.
    const join =
      'mkdir -p /sys/fs/cgroup/tests; echo 0 > /sys/fs/cgroup/tests/cgroup.procs; exec nsenter -t 1 --cgroup -- "$@"';
    return run("nsenter", [...enter, "--", "sh", "-c", join, "sh", command, ...args], {
      env,
      maxBuffer: 16 * 1024 * 1024,
    });
  };
  let first = 0;
  try {
    await until(
      async () => {
        if (child.exitCode !== null) throw new Error(`the box did not start: ${said}`);
        first = await firstChild(child);
        return first > 0 && (await readFile(join(directory, "booted"), "utf8").catch(() => "")) !== "";
      },
      "the box",
      30_000,
    );
    if (await hasSystemd())
      await until(
        () =>
          inside("systemctl", ["is-system-running"]).then(
            ({ stdout }) => stdout.trim() === "running",
            () => false, // still starting
          ),
        "systemd in the box",
        60_000,
      );
  } catch (thrown) {
    child.kill("SIGKILL");
    throw thrown;
  }
  return {
    async script(name, args) {
      const path = fileURLToPath(new URL(name, import.meta.url));
      return (await inside(process.execPath, [path, ...args])).stdout;
    },
    async [Symbol.asyncDispose]() {
      child.kill("SIGKILL");
      await until(() => child.exitCode !== null || child.signalCode !== null, "the box to end", 20_000);
      // Its control group stays when its processes go.
      const group = join("/mnt", basename(directory));
      const sweep = `mount -t cgroup2 cgroup2 /mnt && find ${group} -depth -type d -delete`;
      await until(
        () =>
          run("unshare", ["--mount", "sh", "-c", sweep]).then(
            () => true,
            () => false,
          ),
        "the box's control group to go",
        20_000,
      );
      await rm(directory, { recursive: true, force: true });
    },
  };
}

async function firstChild({ pid }: ChildProcess): Promise<number> {
  return Number(
    (await readFile(`/proc/${pid}/task/${pid}/children`, "utf8").catch(() => "")).trim().split(" ")[0] ?? 0,
  );
}
