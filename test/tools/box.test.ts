/**
 * Tools that change the machine, on a machine in a box (box.ts) with real programs: systemd, nft, apt and control groups. What each did is
 * looked at with the same programs, without the tools.
 */
import { afterAll, describe, expect, test } from "vitest";
import { hasApt, hasSystemd, noBox, programs, startBox, type Box } from "./box.ts";

interface ThereAndBack {
  readonly call: { readonly success: boolean; readonly error: string };
  readonly before: unknown;
  readonly between: unknown;
  readonly undone: unknown;
  readonly after: unknown;
}
type Found = Readonly<Record<string, ThereAndBack & Readonly<Record<string, unknown>>>>;

let no = await noBox();
const nft = no === undefined ? await programs({ nft: "nftables" }) : undefined;
const podman = no === undefined ? await programs({ podman: "podman", conmon: "conmon", crun: "crun" }) : undefined;
const [systemd, apt] = [await hasSystemd(), await hasApt()];
let box: Box;
try {
  if (no === undefined) box = await startBox({ ...nft, ...podman });
} catch (thrown) {
  no = `it did not come up (${String(thrown)})`;
}

/** What a scenario found. */
const scenario = async (name: string): Promise<Found> => JSON.parse(await box.script("scenario.ts", [name])) as Found;

function undone(found: Found, name: string): void {
  const { call, before, between, undone, after } = found[name] ?? {};
  expect(call, name).toMatchObject({ success: true, error: "" });
  expect(between, name).not.toEqual(before);
  expect(undone, name).toEqual({ success: true });
  expect(after, name).toEqual(before);
}

const says = (text: string): unknown => expect.stringContaining(text);
const changed = { error: says("has changed since") };

describe.runIf(no === undefined)(`in a box${no === undefined ? "" : `: none here, ${no}`}`, () => {
  afterAll(() => box[Symbol.asyncDispose](), 60_000);

  test.runIf(systemd)(
    "services: started, stopped, restarted and back; what was changed since stays, unless forced",
    async () => {
      const found = await scenario("service");
      expect(found["service.status"]).toMatchObject({ success: true, output: { status: "inactive", pid: null } });
      expect(found["service.running"]).toMatchObject({
        output: { status: "active", pid: expect.any(Number) as number },
      });
      expect(found["service.unknown"]).toMatchObject({ success: false, error: says("does not exist") });
      expect(JSON.stringify(found["service.list"])).toContain("demo.service");
      undone(found, "service.start");
      undone(found, "service.stop");
      undone(found, "service.restart, stopped before");
      expect(found["service.changed since"]).toMatchObject({
        refused: changed,
        still: "ActiveState=active",
        forced: { success: true },
        after: "ActiveState=inactive",
      });
    },
    120_000,
  );

  test.runIf(nft !== undefined)(
    "firewall: an added rule goes again, wherever it is by then, and only it",
    async () => {
      const found = await scenario("firewall");
      undone(found, "firewall.add_rule");
      expect(JSON.stringify(found["firewall.rules"])).toContain(String.raw`\"right\":53`);
      const { before, undone: moved, after } = found["firewall.moved"] ?? {};
      expect(moved).toEqual({ success: true });
      expect(after).toBe(String(before).replace("\t\ttcp dport 22", "\t\ttcp dport 80 accept\n\t\ttcp dport 22"));
      expect(found["firewall.delete_rule"]).toMatchObject({ call: { success: true }, after: before });
      expect(found["firewall.changed since"]).toMatchObject(changed);
      expect(found["firewall.wrong"]).toMatchObject({ success: false, error: says("nft failed") });
    },
    120_000,
  );

  test.runIf(apt)(
    "packages: what came along goes along, settings that were there before stay",
    async () => {
      const found = await scenario("pkg");
      expect(JSON.stringify(found["pkg.search"])).toContain("box-demo");
      undone(found, "pkg.install");
      expect(found["pkg.install"]).toMatchObject({
        before: { conf: "absent", file: "absent" },
        between: { conf: "box-demo\n", file: "box-dep\n" },
      });
      expect(found["pkg.changed since"]).toMatchObject(changed);
      expect(found["pkg.remove"]).toMatchObject({ success: true });
      expect(found["pkg.listed"]).toBe(false);
      undone(found, "pkg.install, settings left");
      expect(found["pkg.install, settings left"]).toMatchObject({ after: { conf: "box-demo\n" } });
      expect(found["pkg.unknown"]).toMatchObject({ success: false, error: says("box-nothing") });
    },
    180_000,
  );

  test.runIf(podman !== undefined)(
    "containers: made, started, stopped and back",
    async () => {
      const found = await scenario("container");
      undone(found, "container.create");
      undone(found, "container.start");
      undone(found, "container.stop");
      expect(found["container.list"]).toMatchObject({
        output: { total: 1, containers: [{ name: "box-one", image: "localhost/box:1", status: "running" }] },
      });
      expect(found["container.exec"]).toMatchObject({ output: { success: true, exit_code: 0, stdout: "hi\n" } });
      expect(found["container.logs"]).toMatchObject({ output: { lines: ["started"], total_lines: 1 } });
      expect(found["container.changed since"]).toMatchObject(changed);
      expect(found["container.another of the name"]).toEqual({ success: true });
      expect(found["container.another is there"]).toBe(true);
      expect(found["container.volume"]).toMatchObject({ success: false, error: says("outside the allowed roots") });
    },
    180_000,
  );

  test("control groups: made, given a process, removed, and back", async () => {
    const found = await scenario("cgroup");
    undone(found, "process.cgroup create");
    undone(found, "process.cgroup assign");
    undone(found, "process.cgroup remove");
    expect(found["process.cgroup busy"]).toMatchObject({ success: false, error: says("busy") });
    const groups = JSON.stringify(found["process.cgroup groups"]);
    if ((found["process.cgroup controllers"] as unknown as string[]).includes("cpu")) {
      expect(found["process.cgroup limited"]).toMatchObject({ success: true });
      expect(groups).toContain('"limited"');
    } else {
      expect(found["process.cgroup limited"]).toMatchObject({ success: false, error: says("the controller cpu") });
      expect(groups).not.toContain('"limited"');
    }
  }, 120_000);
});
