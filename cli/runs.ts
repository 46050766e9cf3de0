/** `beamline runs …`: start, look at and steer workflow runs. */
import type { Command } from "commander";
import { BeamlineError, invalidArgument } from "../contracts/errors.ts";
import { header } from "../contracts/headers.ts";
import { isObject, objectOr, type Json } from "../contracts/openwop/json.ts";
import { TERMINAL_EVENTS, type RunEvent } from "../contracts/openwop/log.ts";
import { restSubject, type RestOperation, type RestReply, type RestRequest } from "../contracts/openwop/rest.ts";
import type { Caller } from "../bus/call.ts";
import { stackContext, wholeNumber, type CommandContext } from "./exec.context.ts";

/** Runs asked for at once: the most that one page may hold. */
const PAGE = 500;

interface Common {
  readonly tenant: string;
}

/** Asks the runs worker as the operator, with every scope. Throws what it refuses. */
export async function askRuns(
  caller: Caller,
  tenant: string,
  operation: RestOperation,
  asked: RestRequest,
): Promise<Json> {
  const headers = { [header.tenantId]: tenant, [header.principal]: "operator", [header.scopes]: "* openwop:test" };
  const reply = (await caller.request(restSubject(operation), asked, {
    headers,
    timeoutMs: 30_000,
    worker: "runs",
  })) as RestReply;
  return objectOr(reply.body);
}

/** JSON from the command line. Throws `invalid_argument` naming the option. */
function json(name: string): (text: string) => Json {
  return (text) => {
    try {
      const value: unknown = JSON.parse(text);
      if (isObject(value)) return value;
    } catch {
      // Told below.
    }
    throw invalidArgument(name, "must be a JSON object");
  };
}

/** Adds `runs`. */
export function runsCommand(program: Command, context: CommandContext = stackContext): void {
  const runs = program.command("runs").description("Start, watch and steer workflow runs.");
  const add = (usage: string, description: string): Command =>
    runs.command(usage).description(description).option("-t, --tenant <id>", "tenant", "default");

  add("start <workflow>", "Start a run.")
    .option("-i, --inputs <json>", "inputs as a JSON object", json("inputs"), {})
    .option("-c, --configurable <json>", "run options as a JSON object", json("configurable"), {})
    .option("--tag <tag...>", "tags")
    .option("-w, --watch", "follow its events")
    .action(
      async (
        workflowId: string,
        options: Common & { inputs: Json; configurable: Json; tag?: string[]; watch?: boolean },
        command: Command,
      ) => {
        const out = context.out(command);
        await using stack = await context.connect();
        const body = {
          workflowId,
          inputs: options.inputs,
          configurable: options.configurable,
          ...(options.tag !== undefined && { tags: options.tag }),
        };
        const made = await askRuns(stack.caller, options.tenant, "create_run", { body });
        if (options.watch !== true) return out.record(made);
        out.line(`run ${String(made["runId"])}`);
        await watch(stack.caller, options.tenant, String(made["runId"]), (event) => print(out, event));
      },
    );

  add("list", "Runs of a tenant, newest first.")
    .option("-n, --limit <count>", "at most so many", wholeNumber("--limit", 1), 50)
    .option("-s, --status <status>", "only runs with this status")
    .action(async (options: Common & { limit: number; status?: string }, command: Command) => {
      await using stack = await context.connect();
      const { status } = options;
      const rows: Json[] = [];
      for (let cursor: unknown; rows.length < options.limit;) {
        const limit = Math.min(PAGE, options.limit - rows.length);
        const query = { limit, ...(status !== undefined && { status }), ...(cursor !== undefined && { cursor }) };
        const page = await askRuns(stack.caller, options.tenant, "list_runs", { query });
        rows.push(...(Array.isArray(page["runs"]) ? page["runs"].filter(isObject) : []));
        cursor = page["nextCursor"];
        if (cursor === undefined) break;
      }
      context.out(command).table(rows, "no runs");
    });

  add("show <run>", "The state of a run.").action(async (runId: string, options: Common, command: Command) => {
    await using stack = await context.connect();
    context.out(command).record(await askRuns(stack.caller, options.tenant, "get_run", { params: { runId } }));
  });

  add("watch <run>", "Follow the events of a run to its end.").action(
    async (runId: string, options: Common, command: Command) => {
      const out = context.out(command);
      await using stack = await context.connect();
      await watch(stack.caller, options.tenant, runId, (event) => print(out, event));
    },
  );

  const steer = (name: string, operation: RestOperation, description: string): void => {
    add(`${name} <run>`, description)
      .option("-r, --reason <text>", "why, for the record")
      .action(async (runId: string, options: Common & { reason?: string }, command: Command) => {
        await using stack = await context.connect();
        const body = options.reason === undefined ? {} : { reason: options.reason };
        context
          .out(command)
          .record(await askRuns(stack.caller, options.tenant, operation, { params: { runId }, body }));
      });
  };
  steer("cancel", "cancel_run", "Cancel a run.");
  steer("resume", "resume_run", "Let a paused run go on.");

  add("pause <run>", "Hold a run.")
    .option("-r, --reason <text>", "why, for the record")
    .option("--now", "cut the executing node off; it starts again when the run goes on")
    .action(async (runId: string, options: Common & { reason?: string; now?: boolean }, command: Command) => {
      await using stack = await context.connect();
      const body = {
        drainPolicy: options.now === true ? "immediate" : "drain-current-node",
        ...(options.reason !== undefined && { reason: options.reason }),
      };
      context
        .out(command)
        .record(await askRuns(stack.caller, options.tenant, "pause_run", { params: { runId }, body }));
    });

  add("fork <run>", "Start a new run from a point of another.")
    .option("-m, --mode <mode>", "replay or branch", "replay")
    .option("-f, --from <sequence>", "event to start from", wholeNumber("--from", 0), 0)
    .option("-o, --overlay <json>", "run options that differ, for a branch", json("overlay"))
    .action(
      async (runId: string, options: Common & { mode: string; from: number; overlay?: Json }, command: Command) => {
        await using stack = await context.connect();
        const body = {
          mode: options.mode,
          fromSeq: options.from,
          ...(options.overlay !== undefined && { runOptionsOverlay: options.overlay }),
        };
        context
          .out(command)
          .record(await askRuns(stack.caller, options.tenant, "fork_run", { params: { runId }, body }));
      },
    );

  add("approve <run> [node]", "Answer what a run waits for; accepts when nothing else is said.")
    .option("--reject", "refuse instead")
    .option("-v, --value <json>", "the whole answer as a JSON object", json("value"))
    .action(
      async (
        runId: string,
        node: string | undefined,
        options: Common & { reject?: boolean; value?: Json },
        command: Command,
      ) => {
        await using stack = await context.connect();
        const params = node === undefined ? await asking(stack.caller, options.tenant, runId) : { runId, nodeId: node };
        const resumeValue = options.value ?? { action: options.reject === true ? "reject" : "accept" };
        const body = { resumeValue };
        const answer = await askRuns(stack.caller, options.tenant, "resolve_interrupt", { params, body });
        context.out(command).record(answer);
      },
    );
}

/** Who asks what a run waits for: its own node, or that of a child it waits with. Throws `failed_precondition` when nobody does. */
async function asking(caller: Caller, tenant: string, runId: string): Promise<{ runId: string; nodeId: string }> {
  const { interrupt, childRuns, status } = await askRuns(caller, tenant, "get_run", { params: { runId } });
  const { nodeId } = objectOr(interrupt);
  if (typeof nodeId === "string") return { runId, nodeId };
  const waits = (one: Json): boolean => String(one["status"]).startsWith("waiting-");
  const children = Array.isArray(childRuns) && waits({ status }) ? childRuns.filter(isObject) : [];
  const child = children.find(waits);
  if (child !== undefined) return asking(caller, tenant, String(child["runId"]));
  throw new BeamlineError("failed_precondition", `run ${runId} waits for nothing: it is ${String(status)}`);
}

/** Every event once, until the run ends; asks again from the last sequence it has. */
async function watch(caller: Caller, tenant: string, runId: string, tell: (event: RunEvent) => void): Promise<void> {
  for (let after = -1; ;) {
    const { events } = (await askRuns(caller, tenant, "poll_events", { params: { runId }, query: { after } })) as {
      events?: RunEvent[];
    };
    for (const event of events ?? []) {
      tell(event);
      after = event.sequence;
      if (TERMINAL_EVENTS.has(event.type)) return;
    }
  }
}

function print(out: ReturnType<CommandContext["out"]>, event: RunEvent): void {
  if (out.json) return out.record({ ...event });
  out.line(`${String(event.sequence).padStart(4)}  ${event.timestamp}  ${event.type.padEnd(22)} ${event.nodeId ?? ""}`);
}
