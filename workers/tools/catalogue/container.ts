/** Containers by Podman (aiOS tools, namespace container). */
import { ToolFailure } from "../failure.ts";
import { bool, int, list, object, str, texts } from "../schema.ts";
import { tool, type Call, type Namespace } from "../tool.ts";

const name = str("Container.", { minLength: 1, maxLength: 128, pattern: "^[A-Za-z0-9][A-Za-z0-9_.-]*$" });
const done = object({ success: bool(), name: str() });
const MAX_STDOUT = 10_000;
const MAX_STDERR = 5_000;

interface Listed {
  readonly Id: string;
  readonly Names: readonly string[];
  readonly Image: string;
  readonly State: string;
  readonly Ports?:
    readonly { readonly host_port?: number; readonly container_port?: number; readonly protocol?: string }[] | null;
}

export const container: Namespace<"container"> = {
  "container.create": tool<{
    image: string;
    name?: string;
    ports?: string[];
    env?: Record<string, string>;
    volumes?: string[];
  }>({
    about: "Makes a container from an image; it is not started. Volumes may only come from the roots.",
    input: object({
      image: str("", { minLength: 1, maxLength: 255, pattern: "^[A-Za-z0-9][A-Za-z0-9_.:/@-]*$" }),
      "name?": name,
      "ports?": list(str("", { pattern: "^[0-9.:/a-z-]+$" })),
      "env?": texts(),
      "volumes?": list(str("source:target[:ro]")),
    }),
    output: object({ success: bool(), container_id: str(), name: str() }),
    changes: true,
    async run({ image, name, ports = [], env = {}, volumes = [] }, call) {
      for (const volume of volumes) {
        const source = volume.split(":")[0] ?? "";
        if (!source.startsWith("/"))
          throw new ToolFailure(`container.create: volume ${volume} must name an absolute source`);
        await using place = await call.host.files.place(source, { follow: true });
        void place;
      }
      const given = name ?? `beamline-${call.executionId.slice(0, 8)}`;
      const id = await podman(
        [
          "create",
          `--name=${given}`,
          ...ports.map((port) => `--publish=${port}`),
          ...Object.entries(env).map(([key, value]) => `--env=${key}=${value}`),
          ...volumes.map((volume) => `--volume=${volume}`),
          "--",
          image,
        ],
        call,
      );
      const container_id = id.trim().split("\n").at(-1) ?? "";
      // By its id: another one may have the name by then.
      call.undo({ op: "run", tool: "container.stop", input: { name: container_id, remove: true } });
      return { success: true, container_id, name: given };
    },
  }),

  "container.start": tool<{ name: string }>({
    about: "Starts a container.",
    input: object({ name }),
    output: done,
    changes: true,
    seen: stateOf,
    prepare: async ({ name }, call) =>
      (await isRunning(name, call))
        ? [{ op: "nothing" }]
        : [{ op: "run", tool: "container.stop", input: { name, timeout: 10 } }],
    async run({ name }, call) {
      await podman(["start", "--", name], call);
      return { success: true, name };
    },
  }),

  "container.stop": tool<{ name: string; timeout: number; remove?: boolean }>({
    about: "Stops a container.",
    input: object({ name, "timeout?": int("Seconds before it is killed.", { default: 10, minimum: 0, maximum: 14 }) }),
    output: done,
    changes: true,
    seen: stateOf,
    prepare: async ({ name }, call) =>
      (await isRunning(name, call)) ? [{ op: "run", tool: "container.start", input: { name } }] : [{ op: "nothing" }],
    async run({ name, timeout, remove }, call) {
      // Undoing a creation removes it: only ever asked for by a rollback.
      if (call.depth > 0 && remove === true) await podman(["rm", "--force", "--", name], call);
      else await podman(["stop", `--time=${timeout ?? 10}`, "--", name], call);
      return { success: true, name };
    },
  }),

  "container.list": tool<{ all: boolean }>({
    about: "Containers: running ones, or all.",
    input: object({ "all?": bool("", { default: false }) }),
    output: object({
      containers: list(object({ id: str("12 characters"), name: str(), image: str(), status: str(), ports: str() })),
      total: int(),
    }),
    async run({ all }, call) {
      const found = JSON.parse(await podman(["ps", "--format=json", ...(all ? ["--all"] : [])], call)) as Listed[];
      const containers = found.map(({ Id, Names, Image, State, Ports }) => ({
        id: Id.slice(0, 12),
        name: Names[0] ?? "",
        image: Image,
        status: State,
        ports: (Ports ?? [])
          .map(({ host_port, container_port, protocol }) => `${host_port}->${container_port}/${protocol}`)
          .join(", "),
      }));
      return { containers, total: containers.length };
    },
  }),

  "container.exec": tool<{ name: string; command: string[] }>({
    about: "Runs a command in a container.",
    input: object({ name, command: list(str(), "", { minItems: 1, maxItems: 1_000 }) }),
    output: object({ success: bool(), exit_code: int(), stdout: str(), stderr: str() }),
    changes: true,
    async run({ name, command }, call) {
      const { code, stdout, stderr } = await call.host.programs.run("podman", ["exec", "--", name, ...command], {
        signal: call.signal,
      });
      return {
        success: code === 0,
        exit_code: code ?? -1,
        stdout: stdout.slice(0, MAX_STDOUT),
        stderr: stderr.slice(0, MAX_STDERR),
      };
    },
  }),

  "container.logs": tool<{ name: string; tail: number }>({
    about: "The last lines a container wrote.",
    input: object({ name, "tail?": int("", { default: 100, minimum: 1, maximum: 10_000 }) }),
    output: object({ success: bool(), name: str(), lines: list(str()), total_lines: int() }),
    async run({ name, tail }, call) {
      const { code, stdout, stderr } = await call.host.programs.run("podman", ["logs", `--tail=${tail}`, "--", name], {
        signal: call.signal,
      });
      if (code !== 0) throw new ToolFailure(`container.logs: ${stderr.trim().slice(-500)}`);
      const lines = `${stdout}${stderr}`.split("\n").filter((line) => line !== "");
      return { success: true, name, lines, total_lines: lines.length };
    },
  }),
};

function podman(args: readonly string[], call: Call): Promise<string> {
  return call.host.programs.must("podman", args, { signal: call.signal, maxBytes: 4 * 1024 * 1024 });
}

/** Whether it runs, and since when. */
function stateOf({ name }: { name: string }, call: Call): Promise<string> {
  return podman(["inspect", "--format={{.State.Running}} {{.State.StartedAt}}", "--", name], call);
}

async function isRunning(name: string, call: Call): Promise<boolean> {
  return (await podman(["inspect", "--format={{.State.Running}}", "--", name], call)).trim() === "true";
}
