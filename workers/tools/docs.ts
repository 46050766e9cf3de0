/** The page of all built-in tools, made from the registry. `node workers/tools/docs.ts` writes docs/tools.md; a test keeps it current. */
import { writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { agents } from "./capabilities.ts";
import { builtInTools, type Offered } from "./registry.ts";
import { toolsSettings } from "./settings.ts";

export const PAGE = fileURLToPath(new URL("../../docs/tools.md", import.meta.url));

interface Shape {
  readonly type?: string | readonly string[];
  readonly properties?: Readonly<Record<string, Shape>>;
  readonly required?: readonly string[];
  readonly items?: Shape;
  readonly description?: string;
  readonly default?: unknown;
  readonly enum?: readonly unknown[];
}

/** The page as text, formatted as every page here is. */
export async function toolsPage(): Promise<string> {
  const { format } = await import("prettier");
  return format(rawPage(), { parser: "markdown", printWidth: 120 });
}

function rawPage(): string {
  const tools = builtInTools();
  const namespaces = [...new Set(tools.map(({ definition }) => definition.namespace))];
  const parts = [
    "# Tools",
    "",
    "<!-- Made from the registry by `node workers/tools/docs.ts`; a test fails when it is not current. -->",
    "",
    `Agents call tools by \`aios.tools.ToolRegistry/Execute\`, over gRPC or as JSON on \`aios.tools.v1.execute\`. There are ${tools.length} built-in tools in ${namespaces.length} namespaces.`,
    "Failures of a tool travel in the answer (`success: false`, `error`); only an unknown tool is an error of the RPC.",
    "",
    "- **Undo**: `Rollback` takes the `execution_id` of a call. It works once, on every tool marked *undone by Rollback*, refuses when what the tool left has changed since, and does it all the same when the reason begins with `force:`. `beamline tools rollback --task ID` undoes a whole task.",
    "- **Who may**: the *needs* of a tool decide, against the agent's set below and what it was granted (`sec.grant`, also below a path only: `fs_write:/srv/*`).",
    "- **Once**: the metadata `idempotency-key` makes a call that changes something happen once; a call whose outcome nobody knows is reported as `outcome unknown`, never run again in silence. One that could not begin uses up neither its key nor its approval.",
    "- **Where**: file tools work inside the configured roots; network tools never reach this machine or its private networks unless the operator says so.",
    "- **Git**: nothing a repository says is run: hooks never, settings only from a list of harmless ones; a repository that sets anything else is refused and the setting named. What is inside `.git` or `*.git` is for git tools alone; other tools may read it, and copy, move or delete a repository with its working tree. A repository without working tree must be named `*.git`. In the working tree git goes by names: who may swap directories for links there while git checks out or stages may still lead it out of the roots.",
    "- **Secrets**: an input may say `secret:table.key`; the value is put in just before the tool runs and cut out of everything that leaves.",
    "- **Your own**: `Register` with a `handler_address`: `host:port` of a gRPC server that answers `ToolRegistry/Execute`, or `nats:beamline.ext.tools.<name>`. MCP servers: `beamline tools mcp NAME URL`, or a file named by `BEAMLINE_TOOLS_MCP`.",
    "- **Approvals**: with `BEAMLINE_TOOLS_CONFIRM` a risky call is refused with the id of an approval; after `beamline tools approve ID` the very same call goes through once.",
    "- **Audit**: every call is a row of a hash chain per tenant: `beamline tools audit verify` checks it, that nothing was deleted from its stream and that nobody else wrote to it; `beamline tools audit export` writes it out. While the bus is away a row is tried again for a minute; the answer waits ten seconds for it.",
    "",
    "## What undoing was shown with",
    "",
    "What a tool left is compared with what is there before it is undone: contents, modes and owners of files, the state of services and containers, the rule in the firewall, versions of packages, revisions of grants. What comes back from a backup has its content, mode, owner and time, and is a file of its own: extended attributes, and that other names were hard links to it, are gone; what was only moved or put aside has everything.",
    "",
    "| tools | opposite | shown with |",
    "|---|---|---|",
    "| `fs`, `code`, `web.download`, `git`, `plugin`, `sec` | what was there comes back, what was made goes | real files, git, python3, openssl, on any machine |",
    "| `service` | the opposite command | systemd 252, in a box |",
    "| `firewall.add_rule` | the rule is deleted by its handle | nft 1.0.6, in a box |",
    "| `pkg.install` | what came along is removed, with its settings when there were none before | apt and dpkg of Debian 12, in a box; dnf, pacman, apk and zypper were never run |",
    "| `container` | removed by id; stopped or started again | podman 4.3.1 with crun, in a box |",
    "| `process.cgroup` | group and process go back | control groups version 2, in a box; limits only where the machine hands their controllers to version 2 |",
    "",
    "The box is a test's own machine in namespaces (`test/tools`), which needs root on Linux; elsewhere these tests say why they did not run. Programs that are missing are taken from the distribution's packages. Never run at all: `monitor.logs` with a journal, `email.send` to a server that is not the test's own, `self.rebuild` with cargo.",
    "",
    "## Agents",
    "",
    "| agent | holds |",
    "|---|---|",
    ...Object.entries(agents).map(
      ([agent, set]) => `| \`${agent}\` | ${set.length >= 29 ? `all ${set.length}` : set.join(", ")} |`,
    ),
    "",
    "## Settings",
    "",
    "| setting | what it is for |",
    "|---|---|",
    ...Object.entries(toolsSettings).map(([name, { sentence }]) => `| \`${name}\` | ${sentence} |`),
  ];
  for (const namespace of namespaces) {
    parts.push("", `## ${namespace}`);
    for (const tool of tools) if (tool.definition.namespace === namespace) parts.push("", ...describe(tool));
  }
  return `${parts.join("\n")}\n`;
}

function describe({ definition, needs, checkedRisk, handler }: Offered): string[] {
  const { name, description, risk_level, idempotent, reversible, timeout_ms } = definition;
  const undoable = reversible || handler.prepare !== undefined;
  const facts = [
    `needs ${needs.join(", ")}`,
    `risk ${risk_level}${checkedRisk === risk_level ? "" : ` (checked as ${checkedRisk})`}`,
    ...(idempotent ? ["idempotent"] : []),
    ...(undoable ? ["undone by Rollback"] : []),
    `at most ${timeout_ms / 1000} s`,
  ];
  return [
    `### \`${name}\``,
    "",
    description,
    "",
    facts.join(" · "),
    "",
    `- input: ${fields(definition.input_schema)}`,
    `- output: ${fields(definition.output_schema)}`,
  ];
}

function fields(schema: Uint8Array): string {
  const { properties = {}, required = [] } = JSON.parse(Buffer.from(schema).toString("utf8")) as Shape;
  const written = Object.entries(properties).map(
    ([name, shape]) => `\`${name}${required.includes(name) ? "" : "?"}\` ${shapeOf(shape)}`,
  );
  return written.length === 0 ? "none" : written.join(", ");
}

function shapeOf(shape: Shape): string {
  const type = shape.type === undefined ? "any" : [shape.type].flat().join(" or ");
  const items = shape.items?.properties === undefined ? "" : ` of {${Object.keys(shape.items.properties).join(", ")}}`;
  const among = shape.enum === undefined ? "" : ` (${shape.enum.join(", ")})`;
  const fallback = shape.default === undefined || shape.default === "" ? "" : ` = ${JSON.stringify(shape.default)}`;
  const about =
    shape.description === undefined || shape.description === ""
      ? ""
      : `: ${shape.description.replace(/\.$/, "").replaceAll("|", "\\|")}`;
  return `${type}${items}${among}${fallback}${about}`;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) writeFileSync(PAGE, await toolsPage());
