/** Runs inside a box: a tools worker on servers of its own, and the tools that change the machine. Prints what it found as one JSON object. */
import { execFile } from "node:child_process";
import { cp, mkdir, readFile, realpath, writeFile } from "node:fs/promises";
import { dirname } from "node:path";
import { until } from "../kit/until.ts";
import { createHash } from "node:crypto";
import { promisify } from "node:util";
import { startTestbed, type Testbed } from "../../workers/tools/testbed.ts";
import type { Json } from "../../workers/tools/tool.ts";

const run = promisify(execFile);
const out = async (command: string, ...args: string[]): Promise<string> => (await run(command, args)).stdout;
const found: Json = {};

await using bed = await startTestbed();
const scenarios: Readonly<Record<string, (bed: Testbed) => Promise<void>>> = {
  service,
  firewall,
  pkg,
  cgroup,
  container,
};
for (const name of process.argv.slice(2)) await scenarios[name]?.(bed);
process.stdout.write(`${JSON.stringify(found)}\n`);

async function rollback(execution_id: string, reason = "undo"): Promise<Json> {
  return bed.rpc("rollback", { execution_id, reason });
}

/** A call, how the machine looks after it, its rollback, and how it looks then. */
async function thereAndBack(name: string, tool: string, input: Json, look: () => Promise<unknown>): Promise<void> {
  const before = await look();
  const call = await bed.run(tool, input);
  const between = await look();
  const undone = await rollback(call.execution_id);
  found[name] = { call, before, between, undone, after: await look() };
}

async function service(): Promise<void> {
  const state = async (): Promise<string> => (await out("systemctl", "show", "--property=ActiveState", "demo")).trim();
  found["service.status"] = await bed.run("service.status", { name: "demo" });
  found["service.unknown"] = await bed.run("service.start", { name: "nothing-of-that-name" });
  await thereAndBack("service.start", "service.start", { name: "demo" }, state);
  await thereAndBack("service.restart, stopped before", "service.restart", { name: "demo" }, state);
  await run("systemctl", ["start", "demo"]);
  await thereAndBack("service.stop", "service.stop", { name: "demo" }, state);
  found["service.list"] = await bed.run("service.list");
  found["service.running"] = await bed.run("service.status", { name: "demo.service" });
  await run("systemctl", ["stop", "demo"]);
  const started = await bed.run("service.start", { name: "demo" });
  await run("systemctl", ["restart", "demo"]);
  const refused = await rollback(started.execution_id);
  const still = await state();
  found["service.changed since"] = {
    refused,
    still,
    forced: await rollback(started.execution_id, "force: I know"),
    after: await state(),
  };
}

async function firewall(): Promise<void> {
  await run("nft", ["add", "table", "inet", "filter"]);
  await run("nft", [
    "add",
    "chain",
    "inet",
    "filter",
    "input",
    "{ type filter hook input priority 0; policy accept; }",
  ]);
  await run("nft", ["add", "rule", "inet", "filter", "input", "tcp", "dport", "22", "accept"]);
  const rules = (): Promise<string> => out("nft", "list", "ruleset");
  const add = { chain: "input", rule: "ip saddr 10.1.2.3", action: "drop" };
  await thereAndBack("firewall.add_rule", "firewall.add_rule", add, rules);
  const before = await rules();
  const added = await bed.run("firewall.add_rule", {
    chain: "inet filter input",
    rule: "udp dport 53",
    action: "accept",
  });
  await run("nft", ["insert", "rule", "inet", "filter", "input", "tcp", "dport", "80", "accept"]);
  found["firewall.rules"] = await bed.run("firewall.rules");
  // Its position is another by now; it is the rule that goes, not the position.
  found["firewall.moved"] = { before, undone: await rollback(added.execution_id), after: await rules() };
  found["firewall.delete_rule"] = {
    call: await bed.run("firewall.delete_rule", { chain: "input", index: 0 }),
    after: await rules(),
    before,
  };
  const gone = await bed.run("firewall.add_rule", add);
  await bed.run("firewall.delete_rule", { chain: "input", index: 1 });
  found["firewall.changed since"] = await rollback(gone.execution_id);
  found["firewall.wrong"] = await bed.run("firewall.add_rule", {
    chain: "nowhere",
    rule: "tcp dport 1",
    action: "accept",
  });
}

async function pkg(): Promise<void> {
  await localRepository();
  const state = async (): Promise<Json> => ({
    dpkg: createHash("sha256")
      .update(await out("dpkg-query", "-W", "-f", "${Package} ${Version} ${db:Status-Status}\n"))
      .digest("hex"),
    conf: await readFile("/etc/box-demo.conf", "utf8").catch(() => "absent"),
    file: await readFile("/usr/share/box-dep/data", "utf8").catch(() => "absent"),
  });
  found["pkg.search"] = await bed.run("pkg.search", { query: "box-demo" });
  await thereAndBack("pkg.install", "pkg.install", { name: "box-demo" }, state);
  const installed = await bed.run("pkg.install", { name: "box-demo" });
  await run("apt-get", ["remove", "-y", "box-demo"]);
  found["pkg.changed since"] = await rollback(installed.execution_id);
  found["pkg.settings"] = await readFile("/etc/box-demo.conf", "utf8").catch(() => "absent");
  found["pkg.remove"] = await bed.run("pkg.remove", { name: "box-dep" });
  found["pkg.listed"] = JSON.stringify((await bed.run("pkg.list_installed")).output).includes('"box-');
  // Installed again over the settings of the last time: undone, those stay.
  await thereAndBack("pkg.install, settings left", "pkg.install", { name: "box-demo" }, state);
  found["pkg.unknown"] = await bed.run("pkg.install", { name: "box-nothing" });
}

/** Two packages, one needing the other, in a repository on disk that is all apt knows. */
async function localRepository(): Promise<void> {
  const home = "/var/box-repository";
  const packages = {
    "box-dep": { file: "usr/share/box-dep/data", more: "" },
    "box-demo": { file: "etc/box-demo.conf", more: "Depends: box-dep\n" },
  };
  let index = "";
  for (const [name, { file, more }] of Object.entries(packages)) {
    const build = `${home}/build/${name}`;
    const path = `${build}/${file}`;
    await mkdir(`${build}/DEBIAN`, { recursive: true });
    await mkdir(path.slice(0, path.lastIndexOf("/")), { recursive: true });
    await writeFile(path, `${name}\n`);
    const control = `Package: ${name}\nVersion: 1.0\nArchitecture: all\nMaintainer: box <box@example.org>\n${more}Description: for a test\n`;
    await writeFile(`${build}/DEBIAN/control`, control);
    if (file.startsWith("etc/")) await writeFile(`${build}/DEBIAN/conffiles`, `/${file}\n`);
    await run("dpkg-deb", ["--build", "--root-owner-group", build, `${home}/${name}.deb`]);
    const bytes = await readFile(`${home}/${name}.deb`);
    index += `${control}Filename: ./${name}.deb\nSize: ${bytes.length}\nSHA256: ${createHash("sha256").update(bytes).digest("hex")}\n\n`;
  }
  await writeFile(`${home}/Packages`, index);
  await run("sh", ["-c", "rm -rf /etc/apt/sources.list /etc/apt/sources.list.d/* /etc/apt/apt.conf.d/*"]);
  await writeFile("/etc/apt/sources.list", `deb [trusted=yes] file:${home} ./\n`);
  await writeFile("/etc/apt/apt.conf.d/box", 'APT::Sandbox::User "root";\n');
  await run("apt-get", ["update"]);
}

async function container(): Promise<void> {
  await localImage();
  // One that has run is not again as if it never had: what counts is which there are, and which of them run.
  const names = (...which: string[]): Promise<string> => out("podman", "ps", ...which, "--format={{.Names}}");
  const all = async (): Promise<string> => `there are ${await names("--all")}running are ${await names()}`;
  const name = "box-one";
  await thereAndBack("container.create", "container.create", { image: "localhost/box:1", name, env: { A: "b" } }, all);
  await bed.run("container.create", { image: "localhost/box:1", name });
  await thereAndBack("container.start", "container.start", { name }, all);
  await bed.run("container.start", { name });
  await thereAndBack("container.stop", "container.stop", { name, timeout: 0 }, all);
  found["container.list"] = await bed.run("container.list");
  found["container.exec"] = await bed.run("container.exec", { name, command: ["/bin/echo", "hi"] });
  const logs = async (): Promise<Json> => (await bed.run("container.logs", { name, tail: 1 })) as unknown as Json;
  found["container.logs"] = await until(async () => {
    const answer = await logs();
    return JSON.stringify(answer).includes("started") ? answer : undefined;
  }, "what the container says");
  const stopped = await bed.run("container.stop", { name, timeout: 0 });
  await run("podman", ["start", name]);
  found["container.changed since"] = await rollback(stopped.execution_id);
  const made = await bed.run("container.create", { image: "localhost/box:1", name: "box-two" });
  await run("podman", ["rm", "--force", "box-two"]);
  await run("podman", ["create", "--name=box-two", "localhost/box:1"]);
  found["container.another of the name"] = await rollback(
    made.execution_id,
    "force: by its name it would be another one",
  );
  found["container.another is there"] = (await all()).includes("box-two");
  found["container.volume"] = await bed.run("container.create", { image: "localhost/box:1", volumes: ["/etc:/x"] });
}

/** What podman needs to run without a registry and a network, and an image of a few programs of this machine. */
async function localImage(): Promise<void> {
  const [conmon, crun] = [(await out("which", "conmon")).trim(), (await out("which", "crun")).trim()];
  const settings: Readonly<Record<string, string>> = {
    "policy.json": '{"default":[{"type":"insecureAcceptAnything"}]}',
    "storage.conf":
      '[storage]\ndriver="vfs"\nrunroot="/run/containers/storage"\ngraphroot="/var/lib/containers/storage"\n',
    "containers.conf": `[containers]\nnetns="host"\ncgroups="disabled"\nlog_driver="k8s-file"\n[engine]\ncgroup_manager="cgroupfs"\nevents_logger="file"\nruntime="crun"\nconmon_path=["${conmon}"]\n[engine.runtimes]\ncrun=["${crun}"]\n`,
  };
  await mkdir("/etc/containers", { recursive: true });
  for (const [name, text] of Object.entries(settings)) await writeFile(`/etc/containers/${name}`, text);
  const image = "/var/box-image";
  const programs = ["/bin/sh", "/bin/echo", "/bin/sleep"];
  const libraries = (await out("ldd", ...programs)).split("\n").flatMap((line) => /(\/\S+) \(/.exec(line)?.[1] ?? []);
  for (const file of new Set([...programs, ...libraries])) {
    await mkdir(`${image}${dirname(file)}`, { recursive: true });
    await cp(await realpath(file), `${image}${file}`);
  }
  await run("tar", ["-C", image, "-cf", `${image}.tar`, "."]);
  const start = 'CMD ["/bin/sh", "-c", "echo started; exec sleep 100000"]';
  await run("podman", [
    "import",
    "--change",
    start,
    "--change",
    "STOPSIGNAL SIGKILL",
    `${image}.tar`,
    "localhost/box:1",
  ]);
}

async function cgroup(): Promise<void> {
  const { pid } = (await bed.run("process.spawn", { command: "sleep", args: ["1000"] })).output as { pid: number };
  const groups = async (): Promise<unknown> => [
    (await bed.run("process.cgroup", {})).output["details"],
    (await readFile(`/proc/${pid}/cgroup`, "utf8")).split("\n").find((line) => line.startsWith("0::")),
  ];
  const group_name = "box";
  await thereAndBack("process.cgroup create", "process.cgroup", { action: "create", group_name }, groups);
  await bed.run("process.cgroup", { action: "create", group_name });
  await thereAndBack("process.cgroup assign", "process.cgroup", { action: "assign", group_name, pid }, groups);
  await thereAndBack("process.cgroup remove", "process.cgroup", { action: "remove", group_name }, groups);
  await bed.run("process.cgroup", { action: "assign", group_name, pid });
  found["process.cgroup busy"] = await bed.run("process.cgroup", { action: "remove", group_name });
  found["process.cgroup limited"] = await bed.run("process.cgroup", {
    action: "create",
    group_name: "limited",
    cpu_weight: 50,
  });
  found["process.cgroup controllers"] = (await readFile("/sys/fs/cgroup/cgroup.controllers", "utf8")).trim().split(" ");
  found["process.cgroup groups"] = await groups();
  await bed.run("process.kill", { pid });
}
