/**
 * Programs others wrote (plugins, what they depend on, spawned processes), kept apart from the worker that starts them. As the same user they
 * could otherwise read its environment, memory and open files in /proc, secrets included, and leave processes behind that nobody ends.
 *
 * P1 What keeps a program apart is tried out, not taken for granted: a way counts when what it starts cannot read the worker's environment.
 * P2 Where no way works (no user namespaces, and nothing to give up), programs run all the same, and the worker says so when it starts.
 */

/** Where a program others wrote is started from. */
export interface Way {
  readonly name: string;
  /** Put before the vector of a program that is waited for. */
  readonly waited: readonly string[];
  /** The same for one that is left running: it keeps the process id it is started with. */
  readonly left: readonly string[];
}

const USER = ["unshare", "--user", "--map-current-user"];
const POWERLESS = ["setpriv", "--inh-caps=-all", "--bounding-set=-all", "--"];

/** Best first. */
const WAYS: readonly Way[] = [
  // With the first process of a process namespace everything in it ends, whatever session or group it has moved to.
  { name: "namespaces", waited: [...USER, "--pid", "--fork", "--kill-child", "--"], left: [...USER, "--"] },
  { name: "a user namespace", waited: [...USER, "--"], left: [...USER, "--"] },
  // Root without its capabilities may not look into a process that has some.
  { name: "no capabilities", waited: POWERLESS, left: POWERLESS },
];

/** Succeeds when the environment of the process named cannot be read. */
const PROBE = 'test -d "/proc/$0" && ! cat "/proc/$0/environ" >/dev/null 2>&1';

/** P1. The best way that works here; undefined when none does. @param succeeds runs an argument vector */
export async function findWay(succeeds: (vector: readonly string[]) => Promise<boolean>): Promise<Way | undefined> {
  for (const way of WAYS) {
    const probes = [...new Set([way.waited, way.left])];
    const shown = probes.map((before) => succeeds([...before, "sh", "-c", PROBE, String(process.pid)]));
    if ((await Promise.all(shown)).every(Boolean)) return way;
  }
  return undefined;
}
