/** `beamline tools`: look at tools, run them, undo what they did, decide approvals, check the audit ledger. */
import { once } from "node:events";
import type { Command } from "commander";
import { BeamlineError } from "../contracts/errors.ts";
import { codecOf, opaque } from "../contracts/codec.ts";
import { ToolRegistryDefinition, type ToolDefinition } from "../contracts/gen/aios/tools.ts";
import { header } from "../contracts/headers.ts";
import { routesOf, type Route } from "../contracts/routes.ts";
import { stackContext, type CommandContext } from "./exec.context.ts";
import type { Connection } from "./stack.ts";

type Registry = typeof ToolRegistryDefinition.methods;
type Reply<K extends keyof Registry> = ReturnType<Registry[K]["responseType"]["decode"]>;
type Request<K extends keyof Registry> = Parameters<Registry[K]["requestType"]["fromPartial"]>[0];

const routes = routesOf(ToolRegistryDefinition);
const OWN = "beamline.tools.v1";
const LONG_MS = 300_000;

interface InTenant {
  readonly tenant: string;
}

/** A message of the contract there and back. */
async function rpc<K extends keyof Registry>(
  stack: Connection,
  method: K,
  request: Request<K>,
  tenant: string,
): Promise<Reply<K>> {
  const route: Route = routes[method];
  const type = opaque(route.method.requestType);
  const json = codecOf(type).toJson(type.fromPartial(request));
  const options = { timeoutMs: route.timeoutMs, worker: route.worker, headers: headersOf(tenant, route.timeoutMs) };
  const reply = await stack.caller.request(route.subject, json, options);
  return codecOf(opaque(route.method.responseType)).fromJson(reply) as Reply<K>;
}

/** What the tools worker answers beside the contract. */
async function ask<T>(stack: Connection, what: string, request: object, tenant: string): Promise<T> {
  return (await stack.caller.request(`${OWN}.${what}`, request, {
    timeoutMs: LONG_MS,
    worker: "tools",
    headers: headersOf(tenant, LONG_MS),
  })) as T;
}

function headersOf(tenant: string, timeoutMs: number): Record<string, string> {
  return {
    [header.tenantId]: tenant,
    [header.deadline]: String(Date.now() + timeoutMs),
    [header.principal]: "operator",
  };
}

/** Adds `tools` with its subcommands. */
export function toolsCommand(program: Command, context: CommandContext = stackContext): void {
  const tools = program.command("tools").description("Tools agents can call.");
  const command = (name: string, about: string): Command =>
    tools.command(name).description(about).option("-t, --tenant <id>", "tenant", "default");

  command("ls", "List tools.")
    .argument("[namespace]", "only this namespace", "")
    .action(async (namespace: string, { tenant }: InTenant, command: Command) => {
      const out = context.out(command);
      await using stack = await context.connect();
      const { tools } = await rpc(stack, "listTools", { namespace }, tenant);
      out.table(
        tools.map(({ name, risk_level: risk, reversible, idempotent, description: about }) => ({
          name,
          risk,
          reversible,
          idempotent,
          about,
        })),
        "no tools",
      );
    });

  command("show", "Show one tool with its schemas.")
    .argument("<name>")
    .action(async (name: string, { tenant }: InTenant, command: Command) => {
      const out = context.out(command);
      await using stack = await context.connect();
      out.record(shown(await rpc(stack, "getTool", { name }, tenant)));
    });

  command("run", "Run a tool as an agent. Fails when the tool does.")
    .argument("<name>")
    .argument("[input]", "JSON, or - to read it from standard input", "{}")
    .option("-a, --agent <id>", "agent whose capabilities decide", "task-agent")
    .option("--task <id>", "task it is done for", "")
    .option("-r, --reason <text>", "why, for the audit", "run by hand")
    .action(
      async (
        name: string,
        input: string,
        options: InTenant & { agent: string; task: string; reason: string },
        command: Command,
      ) => {
        const out = context.out(command);
        const text = input === "-" ? await standardInput() : input;
        await using stack = await context.connect();
        const { agent, task, reason, tenant } = options;
        const request = { tool_name: name, agent_id: agent, task_id: task, input_json: Buffer.from(text), reason };
        const { success, output_json, error, execution_id, duration_ms, backup_id } = await rpc(
          stack,
          "execute",
          request,
          tenant,
        );
        const output: unknown = output_json.length === 0 ? null : JSON.parse(output_json.toString());
        out.record({
          success,
          ...(success ? { output } : { error }),
          execution_id,
          duration_ms: Number(duration_ms),
          ...(backup_id !== "" && { backup_id }),
        });
        if (!success) process.exitCode = 1;
      },
    );

  command("rollback", "Undo an execution, or everything a task did, last things first.")
    .argument("[execution]", "its id")
    .option("--task <id>", "every execution of this task")
    .option(
      "-r, --reason <text>",
      'why; one that begins with "force:" undoes what has changed since, too',
      "undone by hand",
    )
    .action(
      async (
        execution: string | undefined,
        { task, reason, tenant }: InTenant & { task?: string; reason: string },
        command: Command,
      ) => {
        const out = context.out(command);
        if ((execution === undefined) === (task === undefined))
          throw new BeamlineError("invalid_argument", "name an execution or a --task, and not both");
        await using stack = await context.connect();
        if (task === undefined) {
          const undone = await rpc(stack, "rollback", { execution_id: execution ?? "", reason }, tenant);
          out.record({ ...undone });
          if (!undone.success) process.exitCode = 1;
          return;
        }
        const { success, steps } = await ask<{ success: boolean; steps: Record<string, unknown>[] }>(
          stack,
          "rollback_task",
          { task_id: task, reason },
          tenant,
        );
        out.table(steps, "nothing to undo");
        if (!success) process.exitCode = 1;
      },
    );

  command("executions", "List what a task did that changed something.")
    .argument("<task>")
    .action(async (task: string, { tenant }: InTenant, command: Command) => {
      const out = context.out(command);
      await using stack = await context.connect();
      const { executions } = await ask<{ executions: Record<string, unknown>[] }>(
        stack,
        "executions.list",
        { task_id: task },
        tenant,
      );
      const at = (ms: unknown): string => new Date(Number(ms)).toISOString();
      out.table(
        executions.map((each) => ({ ...each, started_at: at(each["started_at"]) })),
        "nothing",
      );
    });

  command("approvals", "List approvals.").action(async ({ tenant }: InTenant, command: Command) => {
    const out = context.out(command);
    await using stack = await context.connect();
    const { approvals } = await ask<{ approvals: Record<string, unknown>[] }>(stack, "approvals.list", {}, tenant);
    out.table(
      approvals.map(({ approval_id, status, tool_name, agent_id, input, reason }) => ({
        approval_id,
        status,
        tool_name,
        agent_id,
        input,
        reason,
      })),
      "no approvals",
    );
  });

  for (const [verb, approve] of [
    ["approve", true],
    ["deny", false],
  ] as const) {
    command(verb, approve ? "Let one exact call through, once." : "Refuse it.")
      .argument("<approval>", "its id")
      .option("--by <who>", "who decides", process.env["USER"] ?? "operator")
      .option("--note <text>", "why", "")
      .action(
        async (
          approval_id: string,
          { by, note, tenant }: InTenant & { by: string; note: string },
          command: Command,
        ) => {
          const out = context.out(command);
          await using stack = await context.connect();
          out.record(
            await ask<Record<string, unknown>>(stack, "approvals.decide", { approval_id, approve, by, note }, tenant),
          );
        },
      );
  }

  command("mcp", "Import the tools of an MCP server that is reached over HTTP.")
    .argument("<name>", "the tools become mcp_<name>.<tool>")
    .argument("<url>")
    .action(async (name: string, url: string, { tenant }: InTenant, command: Command) => {
      const out = context.out(command);
      await using stack = await context.connect();
      out.record(await ask<Record<string, unknown>>(stack, "mcp.import", { name, url }, tenant));
    });

  auditCommands(tools, context);
}

function auditCommands(tools: Command, context: CommandContext): void {
  const audit = tools.command("audit").description("The audit ledger.");
  const command = (name: string, about: string): Command =>
    audit.command(name).description(about).option("-t, --tenant <id>", "tenant", "default");

  command("ls", "The newest rows.")
    .option("--agent <id>")
    .option("--tool <name>")
    .option("--since <time>", "RFC 3339")
    .option("--until <time>", "RFC 3339")
    .option("--limit <n>", "at most so many", Number, 50)
    .action(
      async (
        options: InTenant & { agent?: string; tool?: string; since?: string; until?: string; limit: number },
        command: Command,
      ) => {
        const out = context.out(command);
        await using stack = await context.connect();
        const { agent: agent_id, tool: tool_name, since, until, limit, tenant } = options;
        const { rows } = await ask<{ rows: Record<string, unknown>[] }>(
          stack,
          "audit.query",
          { agent_id, tool_name, since, until, limit },
          tenant,
        );
        const brief = rows.map(({ id, timestamp, tool_name, agent_id, success, reason, error }) => ({
          id,
          timestamp,
          tool_name,
          agent_id,
          success,
          reason,
          error,
        }));
        out.table(out.json ? rows : brief, "no rows");
      },
    );

  command("verify", "Check both hash chains from the first row to the last. Fails when one is broken.").action(
    async ({ tenant }: InTenant, command: Command) => {
      const out = context.out(command);
      await using stack = await context.connect();
      const verdict = await ask<{ ok: boolean }>(stack, "audit.verify", {}, tenant);
      out.record({ ...verdict });
      if (!verdict.ok) process.exitCode = 1;
    },
  );

  command("export", "Every row as a line of JSON, oldest first, published fields in published order.").action(
    async ({ tenant }: InTenant) => {
      await using stack = await context.connect();
      for (let from: number | undefined = 1; from !== undefined;) {
        const page: { rows: object[]; next?: number } = await ask(stack, "audit.rows", { from }, tenant);
        for (const row of page.rows)
          if (!process.stdout.write(`${JSON.stringify(row)}\n`)) await once(process.stdout, "drain");
        from = page.next;
      }
    },
  );
}

function shown({ input_schema, output_schema, ...facts }: ToolDefinition): Record<string, unknown> {
  const parsed = (bytes: Uint8Array): unknown =>
    bytes.length === 0 ? null : JSON.parse(Buffer.from(bytes).toString());
  return { ...facts, input_schema: parsed(input_schema), output_schema: parsed(output_schema) };
}

async function standardInput(): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of process.stdin) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks).toString("utf8");
}
