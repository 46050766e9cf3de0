/** `beamline policies` and `beamline extensions`: what the router decides by, and what it asks on the way. */
import { readFileSync } from "node:fs";
import type { Command } from "commander";
import { BeamlineError } from "../contracts/errors.ts";
import { stackContext, type CommandContext } from "./exec.context.ts";
import type { Output } from "./output.ts";
import { findStack } from "./stack.ts";

type Json = Readonly<Record<string, unknown>>;
type Ask = (name: string, request: Json) => Promise<Json>;
interface TenantOption {
  readonly tenant: string;
}

const ADMIN = "beamline.router.v1.admin";
const TENANT = ["-t, --tenant <id>", "tenant; * for what serves everybody", "default"] as const;

/** Adds `policies` and `extensions`. */
export function policyCommands(program: Command, context: CommandContext = stackContext): void {
  /** Runs one command with a way to ask the admin subjects. */
  const admin = async (command: Command, run: (ask: Ask, out: Output) => Promise<void>): Promise<void> => {
    await using stack = await context.connect();
    const headers = { "x-api-key": adminKey() };
    const ask: Ask = async (name, request) =>
      (await stack.caller.request(`${ADMIN}.${name}`, request, {
        headers,
        timeoutMs: 5_000,
        worker: "routing",
      })) as Json;
    await run(ask, context.out(command));
  };

  const policies = program.command("policies").description("Routing policies.");
  policies
    .command("list")
    .description("List a tenant's policies.")
    .option(...TENANT)
    .action(({ tenant }: TenantOption, command: Command) =>
      admin(command, async (ask, out) => {
        const { documents } = await ask("list_policies", { tenant_id: tenant });
        out.table((documents as Json[]).map(rowOf), "no policies");
      }),
    );
  policies
    .command("show")
    .description("Show a policy as it was stored.")
    .argument("<policy>")
    .option(...TENANT)
    .action((policy_id: string, { tenant }: TenantOption, command: Command) =>
      admin(command, async (ask, out) => {
        const { document } = await ask("get_policy", { tenant_id: tenant, policy_id });
        out.record(document as Json);
      }),
    );
  policies
    .command("put")
    .description("Create or replace a policy from a JSON document.")
    .argument("<policy>")
    .argument("<file>", "the document; - reads standard input")
    .option(...TENANT)
    .action((policy_id: string, file: string, { tenant }: TenantOption, command: Command) =>
      admin(command, async (ask, out) => {
        const policy = { version: "1.0", ...documentIn(file), policy_id };
        out.record(await ask("upsert_policy", { tenant_id: tenant, policy }));
      }),
    );
  policies
    .command("delete")
    .description("Remove a policy.")
    .argument("<policy>")
    .option(...TENANT)
    .action((policy_id: string, { tenant }: TenantOption, command: Command) =>
      admin(command, async (ask, out) => out.record(await ask("delete_policy", { tenant_id: tenant, policy_id }))),
    );

  const extensions = program.command("extensions").description("Routing extensions.");
  extensions
    .command("list")
    .description("List a tenant's extensions.")
    .option(...TENANT)
    .action(({ tenant }: TenantOption, command: Command) =>
      admin(command, async (ask, out) => {
        const { extensions: found } = await ask("list_extensions", { tenant_id: tenant });
        const rows = (found as Json[]).map(({ id, type, subject, timeout_ms, retry, enabled }) => ({
          id,
          type,
          subject,
          timeout_ms,
          retry,
          enabled,
        }));
        out.table(rows, "no extensions");
      }),
    );
  extensions
    .command("put")
    .description(
      "Register an extension from a JSON record: id, type (pre, validator, post), subject, timeout_ms, retry.",
    )
    .argument("<file>", "the record; - reads standard input")
    .option(...TENANT)
    .action((file: string, { tenant }: TenantOption, command: Command) =>
      admin(command, async (ask, out) =>
        out.record(await ask("upsert_extension", { tenant_id: tenant, extension: documentIn(file) })),
      ),
    );
  extensions
    .command("delete")
    .description("Remove an extension.")
    .argument("<extension>")
    .option(...TENANT)
    .action((extension_id: string, { tenant }: TenantOption, command: Command) =>
      admin(command, async (ask, out) =>
        out.record(await ask("delete_extension", { tenant_id: tenant, extension_id })),
      ),
    );
  extensions
    .command("health")
    .description("Show how extensions behave.")
    .action((_options: object, command: Command) =>
      admin(command, async (ask, out) => {
        const { health } = await ask("get_extension_health", {});
        const rows = Object.values(health as Record<string, Json>).map((one) => ({
          extension: one["extension_id"],
          status: one["status"],
          success_rate: one["success_rate"],
          p95_ms: one["p95_latency_ms"],
          circuit: one["circuit_breaker_state"],
        }));
        out.table(rows, "no extensions");
      }),
    );
}

function rowOf({
  policy_id,
  providers,
  weights,
  sticky,
  rate_limit,
  circuit_breaker,
  pre,
  validators,
  post,
}: Json): Json {
  const count = (list: unknown): number => (Array.isArray(list) ? list.length : 0);
  const named = Array.isArray(providers)
    ? (providers as Json[]).map(({ name, weight }) => `${String(name)}:${String(weight)}`)
    : Object.entries((weights ?? {}) as Json).map(([name, weight]) => `${name}:${String(weight)}`);
  const on = (part: unknown): boolean => (part as { enabled?: unknown } | undefined)?.enabled === true;
  return {
    policy: policy_id,
    providers: named.join(" "),
    sticky: on(sticky),
    limited: on(rate_limit),
    breaker: on(circuit_breaker),
    extensions: count(pre) + count(validators) + count(post),
  };
}

/** Throws `invalid_argument` when the file holds no JSON object. */
function documentIn(file: string): Json {
  let parsed: unknown;
  try {
    parsed = JSON.parse(readFileSync(file === "-" ? 0 : file, "utf8"));
  } catch (cause) {
    throw new BeamlineError("invalid_argument", `${file} cannot be read as JSON`, { field: "file", cause });
  }
  if (typeof parsed === "object" && parsed !== null && !Array.isArray(parsed)) return parsed as Json;
  throw new BeamlineError("invalid_argument", `${file} must hold a JSON object`, { field: "file" });
}

/** From the environment, else of the running local stack. Throws `unauthenticated`. */
function adminKey(): string {
  const key = process.env["BEAMLINE_ROUTER_ADMIN_API_KEY"] ?? findStack()?.env["BEAMLINE_ROUTER_ADMIN_API_KEY"];
  if (key !== undefined) return key;
  throw new BeamlineError(
    "unauthenticated",
    "set BEAMLINE_ROUTER_ADMIN_API_KEY: policies are changed with the admin key",
  );
}
