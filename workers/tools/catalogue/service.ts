/** Services of systemd (aiOS tools, namespace service). */
import { access } from "node:fs/promises";
import { missing, ToolFailure } from "../failure.ts";
import { bool, int, list, nullable, object, str } from "../schema.ts";
import { tool, type Call, type Json, type Namespace } from "../tool.ts";
import type { Step } from "../undo.ts";

interface Named {
  readonly name: string;
}

const name = str("Unit, with or without .service.", {
  minLength: 1,
  maxLength: 255,
  pattern: "^[A-Za-z0-9_@][A-Za-z0-9:_.@\\\\-]*$",
});
const named = object({ name });

export const service: Namespace<"service"> = {
  "service.list": tool({
    about: "Services of systemd with their active state and main process.",
    input: object(),
    output: object({ services: list(object({ name: str(), status: str("Active state."), pid: nullable(int()) })) }),
    async run(_input, call) {
      const text = await systemctl(["show", "*.service", "--all", "--property=Id,ActiveState,MainPID"], call);
      const services = text
        .split("\n\n")
        .map(properties)
        .filter((unit) => unit["Id"] !== undefined);
      return {
        services: services
          .map((unit) => ({ name: unit["Id"], status: unit["ActiveState"] ?? "unknown", pid: pidOf(unit) }))
          .sort((a, b) => ((a.name ?? "") < (b.name ?? "") ? -1 : 1)),
      };
    },
  }),

  "service.start": tool<Named>({
    seen: stateOf,
    about: "Starts a service.",
    input: named,
    output: object({ started: bool(), pid: int() }),
    changes: true,
    prepare: async ({ name }, call) => (isUp(await show(name, call)) ? nothing : opposite("service.stop", name)),
    async run({ name }, call) {
      await systemctl(["start", "--", name], call);
      return { started: true, pid: pidOf(await show(name, call)) ?? 0 };
    },
  }),

  "service.stop": tool<Named>({
    seen: stateOf,
    about: "Stops a service.",
    input: named,
    output: object({ stopped: bool() }),
    changes: true,
    prepare: async ({ name }, call) => (isUp(await show(name, call)) ? opposite("service.start", name) : nothing),
    async run({ name }, call) {
      await systemctl(["stop", "--", name], call);
      return { stopped: true };
    },
  }),

  "service.restart": tool<Named>({
    about:
      "Restarts a service; undone, a service that was not running is stopped again, and one that was stays as it is.",
    input: named,
    output: object({ restarted: bool(), pid: int() }),
    changes: true,
    prepare: async ({ name }, call) => (isUp(await show(name, call)) ? nothing : opposite("service.stop", name)),
    async run({ name }, call) {
      await systemctl(["restart", "--", name], call);
      return { restarted: true, pid: pidOf(await show(name, call)) ?? 0 };
    },
  }),

  "service.status": tool<Named>({
    about: "State of one service.",
    input: named,
    output: object({
      name: str(),
      status: str("ActiveState of systemd."),
      pid: nullable(int()),
      uptime: str("When it became active, or N/A."),
    }),
    async run({ name }, call) {
      const unit = await show(name, call);
      const since = unit["ActiveEnterTimestamp"];
      return {
        name,
        status: unit["ActiveState"] ?? "unknown",
        pid: pidOf(unit),
        uptime: since === undefined || since === "" ? "N/A" : since,
      };
    },
  }),
};

async function stateOf({ name }: Named, call: Call): Promise<string> {
  const unit = await show(name, call);
  return `${unit["ActiveState"]} ${pidOf(unit)}`;
}

/** It was so already. */
const nothing: readonly Step[] = [{ op: "nothing" }];

function opposite(tool: string, name: string): readonly Step[] {
  return [{ op: "run", tool, input: { name } satisfies Json }];
}

async function show(name: string, call: Call): Promise<Readonly<Record<string, string>>> {
  const unit = properties(
    await systemctl(["show", "--property=Id,LoadState,ActiveState,MainPID,ActiveEnterTimestamp", "--", name], call),
  );
  if (unit["LoadState"] === "not-found") throw new ToolFailure(`service ${name} does not exist`);
  return unit;
}

/** Runs systemctl where systemd is in charge. Throws `ToolFailure` naming what is missing. */
async function systemctl(args: readonly string[], call: Call): Promise<string> {
  const booted = await access("/run/systemd/system").then(
    () => true,
    () => false,
  );
  if (!booted) throw missing("systemd", "it is not what this host was started with");
  return call.host.programs.must("systemctl", ["--no-pager", "--no-ask-password", ...args], {
    signal: call.signal,
    maxBytes: 4 * 1024 * 1024,
  });
}

function properties(text: string): Readonly<Record<string, string>> {
  return Object.fromEntries(
    text
      .split("\n")
      .filter((line) => line.includes("="))
      .map((line) => [line.slice(0, line.indexOf("=")), line.slice(line.indexOf("=") + 1)]),
  );
}

function pidOf(unit: Readonly<Record<string, string>>): number | null {
  const pid = Number(unit["MainPID"] ?? 0);
  return pid > 0 ? pid : null;
}

function isUp(unit: Readonly<Record<string, string>>): boolean {
  return unit["ActiveState"] === "active" || unit["ActiveState"] === "activating";
}
