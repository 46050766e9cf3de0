/** Packages of the distribution (aiOS tools, namespace pkg): apt, dnf, pacman, zypper or apk, whichever the host has. */
import { missing } from "../failure.ts";
import { bool, int, list, object, str } from "../schema.ts";
import { tool, type Call, type Namespace } from "../tool.ts";

interface Package {
  readonly name: string;
  readonly version: string;
  readonly description?: string;
}

/** How one package manager is spoken to; each command a program and its arguments. */
interface Manager {
  readonly program: string;
  readonly list: readonly string[];
  readonly install: (name: string) => readonly string[];
  readonly remove: (names: readonly string[]) => readonly string[];
  /** Removes what had never been there, with whatever it put into the system's settings; default as `remove`. */
  readonly purge?: (names: readonly string[]) => readonly string[];
  readonly search: (query: string) => readonly string[];
  readonly update: readonly (readonly string[])[];
  readonly parseList: (line: string) => Package | undefined;
  readonly parseSearch: (line: string) => Package | undefined;
}

const two = (line: string): Package | undefined => {
  const [name, version] = line.trim().split(/\s+/);
  return name === undefined || name === "" ? undefined : { name, version: version ?? "" };
};
const dashed = (line: string): Package | undefined => {
  const at = line.indexOf(" - ");
  return at < 0 ? undefined : { name: line.slice(0, at).trim(), version: "", description: line.slice(at + 3).trim() };
};

const managers: readonly Manager[] = [
  {
    program: "apt-get",
    list: ["dpkg-query", "-W", "-f=${Package} ${Version} ${db:Status-Status}\n"],
    install: (name) => ["apt-get", "install", "-y", "--no-install-recommends", "--", name],
    remove: (names) => ["apt-get", "remove", "-y", "--", ...names],
    purge: (names) => ["apt-get", "purge", "-y", "--", ...names],
    search: (query) => ["apt-cache", "search", "--", query],
    update: [
      ["apt-get", "update"],
      ["apt-get", "upgrade", "-y"],
    ],
    parseList: (line) => (line.endsWith(" installed") ? two(line) : undefined),
    parseSearch: dashed,
  },
  {
    program: "dnf",
    list: ["rpm", "-qa", "--qf", "%{NAME} %{VERSION}-%{RELEASE}\n"],
    install: (name) => ["dnf", "install", "-y", "--", name],
    remove: (names) => ["dnf", "remove", "-y", "--", ...names],
    search: (query) => ["dnf", "search", "-q", "--", query],
    update: [["dnf", "upgrade", "-y"]],
    parseList: two,
    parseSearch: (line) => {
      const [, name, description] = /^(\S+?)(?:\.\w+)? : (.*)$/.exec(line) ?? [];
      return name === undefined ? undefined : { name, version: "", description: description ?? "" };
    },
  },
  {
    program: "pacman",
    list: ["pacman", "-Q"],
    install: (name) => ["pacman", "-S", "--noconfirm", "--", name],
    remove: (names) => ["pacman", "-R", "--noconfirm", "--", ...names],
    search: (query) => ["pacman", "-Ss", "--", query],
    update: [["pacman", "-Syu", "--noconfirm"]],
    parseList: two,
    parseSearch: (line) => (/^\S+\//.test(line) ? two(line.slice(line.indexOf("/") + 1)) : undefined),
  },
  {
    program: "apk",
    list: ["apk", "info", "-v"],
    install: (name) => ["apk", "add", "--", name],
    remove: (names) => ["apk", "del", "--", ...names],
    search: (query) => ["apk", "search", "-v", "--", query],
    update: [
      ["apk", "update"],
      ["apk", "upgrade"],
    ],
    parseList: (line) => {
      const [, name, version] = /^(.+)-(\d[^-]*-r\d+)/.exec(line) ?? [];
      return name === undefined ? undefined : { name, version: version ?? "" };
    },
    parseSearch: dashed,
  },
  {
    program: "zypper",
    list: ["rpm", "-qa", "--qf", "%{NAME} %{VERSION}-%{RELEASE}\n"],
    install: (name) => ["zypper", "--non-interactive", "install", "--", name],
    remove: (names) => ["zypper", "--non-interactive", "remove", "--", ...names],
    search: (query) => ["zypper", "--non-interactive", "search", "--", query],
    update: [["zypper", "--non-interactive", "update"]],
    parseList: two,
    parseSearch: (line) => {
      const [, name, description] = line.split("|").map((cell) => cell.trim());
      return name === undefined || name === "Name" ? undefined : { name, version: "", description: description ?? "" };
    },
  },
];

const name = str("Package.", { minLength: 1, maxLength: 128, pattern: "^[A-Za-z0-9][A-Za-z0-9+.@:_/-]*$" });
const MAX_LISTED = 5_000;

interface Removal {
  readonly name: string;
  /** Only when undone: everything that came with it. */
  readonly brought?: readonly string[];
  /** Only when undone: none of it had left traces before. */
  readonly purge?: boolean;
}

export const pkg: Namespace<"pkg"> = {
  "pkg.install": tool<{ name: string }>({
    about: "Installs a package.",
    input: object({ name }),
    output: object({ installed: bool(), version: str() }),
    changes: true,
    prepare: async ({ name }, call) =>
      (await versionOf(await managerOf(call), name, call)) === undefined
        ? [{ op: "run", tool: "pkg.remove", input: { name } }]
        : [],
    async run({ name }, call) {
      const manager = await managerOf(call);
      const before = await known(manager, call);
      await command(manager.install(name), call);
      const after = await installed(manager, call);
      const [step] = call.steps;
      if (step?.op === "run") {
        // What it brought along goes with it.
        const brought = after.map((each) => each.name).filter((each) => !before.installed.has(each));
        call.undo({ ...step, input: { name, brought, purge: brought.every((each) => !before.traces.has(each)) } });
      }
      return { installed: true, version: after.find((each) => each.name === name)?.version ?? "" };
    },
  }),

  "pkg.remove": tool<Removal>({
    about: "Removes a package.",
    input: object({ name }),
    output: object({ removed: bool() }),
    changes: true,
    async seen({ name, brought = [name] }, call) {
      const all = await installed(await managerOf(call), call);
      return JSON.stringify(all.filter((each) => brought.includes(each.name)).map((each) => [each.name, each.version]));
    },
    async run({ name, brought, purge }, call) {
      const manager = await managerOf(call);
      if (call.depth > 0 && brought !== undefined) {
        const still = (await installed(manager, call))
          .map((each) => each.name)
          .filter((each) => brought.includes(each));
        if (still.length > 0)
          await command(purge === true ? (manager.purge ?? manager.remove)(still) : manager.remove(still), call);
      } else await command(manager.remove([name]), call);
      return { removed: true };
    },
  }),

  "pkg.search": tool<{ query: string }>({
    about: "Finds packages that can be installed.",
    input: object({ query: str("", { minLength: 1, maxLength: 200, pattern: "^[A-Za-z0-9+._ -]+$" }) }),
    output: object({
      packages: list(object({ name: str(), version: str("Empty when the manager does not say."), description: str() })),
    }),
    async run({ query }, call) {
      const manager = await managerOf(call);
      const found = (await command(manager.search(query), call))
        .split("\n")
        .flatMap((line) => manager.parseSearch(line) ?? []);
      return {
        packages: found
          .slice(0, MAX_LISTED)
          .map(({ name, version, description = "" }) => ({ name, version, description })),
      };
    },
  }),

  "pkg.update": tool({
    about: "Upgrades every package.",
    input: object(),
    output: object({ updated: int("Packages upgraded.") }),
    changes: true,
    async run(_input, call) {
      const manager = await managerOf(call);
      const before = new Map((await installed(manager, call)).map(({ name, version }) => [name, version]));
      for (const each of manager.update) await command(each, call);
      const after = await installed(manager, call);
      return { updated: after.filter(({ name, version }) => before.has(name) && before.get(name) !== version).length };
    },
  }),

  "pkg.list_installed": tool({
    about: "Packages that are installed.",
    input: object(),
    output: object({ packages: list(object({ name: str(), version: str() })) }),
    run: async (_input, call) => ({ packages: await installed(await managerOf(call), call) }),
  }),
};

async function managerOf(call: Call): Promise<Manager> {
  for (const manager of managers) if ((await call.host.programs.find(manager.program)) !== undefined) return manager;
  throw missing("a package manager", `none of ${managers.map(({ program }) => program).join(", ")}`);
}

async function installed(manager: Manager, call: Call): Promise<Package[]> {
  const text = await command(manager.list, call);
  return text.split("\n").flatMap((line) => {
    const found = manager.parseList(line);
    return found === undefined ? [] : [{ name: found.name, version: found.version }];
  });
}

/** Names of what is installed, and of what the manager remembers, such as settings of what was removed. */
async function known(
  manager: Manager,
  call: Call,
): Promise<{ readonly installed: ReadonlySet<string>; readonly traces: ReadonlySet<string> }> {
  const text = await command(manager.list, call);
  const names = (parse: (line: string) => Package | undefined) =>
    new Set(text.split("\n").flatMap((line) => parse(line)?.name ?? []));
  return { installed: names(manager.parseList), traces: names((line) => manager.parseList(line) ?? two(line)) };
}

async function versionOf(manager: Manager, name: string, call: Call): Promise<string | undefined> {
  return (await installed(manager, call)).find((each) => each.name === name)?.version;
}

function command([program = "", ...args]: readonly string[], call: Call): Promise<string> {
  return call.host.programs.must(program, args, {
    signal: call.signal,
    env: { DEBIAN_FRONTEND: "noninteractive" },
    maxBytes: 8 * 1024 * 1024,
  });
}
