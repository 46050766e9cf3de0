/** Plugins: scripts that become tools (aiOS tools, 1.7 plugins; namespace plugin). */
import { ToolFailure } from "../failure.ts";
import { bool, any, int, list, object, str } from "../schema.ts";
import { templates } from "../plugins/plugintemplates.ts";
import { tool, type Call, type Namespace } from "../tool.ts";
import type { Step } from "../undo.ts";

const name = str("Letters, digits, underscore.", { minLength: 1, maxLength: 64, pattern: "^[A-Za-z0-9_]+$" });
const packageName = str("", {
  minLength: 1,
  maxLength: 128,
  pattern: "^[A-Za-z0-9][A-Za-z0-9._-]*(\\[[A-Za-z0-9,._-]+\\])?([=<>!~]=?[A-Za-z0-9.*]+)?$",
});

interface Created {
  readonly name: string;
  readonly description: string;
  readonly code: string;
  readonly capabilities?: string[];
  readonly dependencies?: string[];
  readonly next_plugins?: string[];
  readonly output_mode: "pipe" | "merge";
}

export const plugin: Namespace<"plugin"> = {
  "plugin.create": tool<Created>({
    about:
      "Makes a Python script with a function main(input_data) into the tool plugin.<name>. A script that is too risky is refused.",
    input: object({
      name,
      description: str("", { maxLength: 2_000 }),
      code: str("", { minLength: 1, maxLength: 262_144 }),
      "capabilities?": list(str()),
      "dependencies?": list(packageName),
      "next_plugins?": list(name, "", { maxItems: 10 }),
      "output_mode?": str("How results of next_plugins are handed on.", { enum: ["pipe", "merge"], default: "pipe" }),
    }),
    output: object({
      success: bool(),
      tool_name: str(),
      script_path: str(),
      metadata_path: str(),
      dependencies_installed: bool(),
    }),
    changes: true,
    prepare: ({ name }, call) => gone(name, call),
    async run(input, call) {
      const made = await call.host.plugins.create(call.tenant, { ...input, author: call.agent });
      return { success: true, ...made, dependencies_installed: await install(input.dependencies ?? [], call) };
    },
  }),

  "plugin.list": tool({
    about: "Plugins there are.",
    input: object(),
    output: object({
      plugins: list(
        object({
          tool_name: str(),
          description: str(),
          script_path: str(),
          dependencies: list(str()),
          created_at: str(),
        }),
      ),
      count: int(),
    }),
    async run(_input, call) {
      const plugins = await call.host.plugins.list(call.tenant);
      return { plugins, count: plugins.length };
    },
  }),

  "plugin.delete": tool<{ name: string }>({
    about: "Removes a plugin.",
    input: object({ name }),
    output: object({ success: bool(), deleted_files: list(str()) }),
    changes: true,
    async seen({ name }, call) {
      const all = await call.host.plugins.list(call.tenant);
      return all.find(({ tool_name }) => tool_name === `plugin.${name}`)?.created_at ?? "absent";
    },
    async run({ name }, call) {
      const deleted_files = await call.host.plugins.delete(call.tenant, name);
      if (deleted_files === undefined) throw new ToolFailure(`plugin.delete: there is no plugin ${name}`);
      return { success: true, deleted_files };
    },
  }),

  "plugin.install_deps": tool<{ name?: string; packages?: string[] }>({
    about: "Installs what a plugin depends on, or the packages named, with pip.",
    input: object({ "name?": name, "packages?": list(packageName) }),
    output: object({ success: bool(), packages_installed: list(str()), error: str() }),
    changes: true,
    async run({ name, packages = [] }, call) {
      const wanted = [
        ...packages,
        ...(name === undefined ? [] : await call.host.plugins.dependencies(call.tenant, name)),
      ];
      if (wanted.length === 0) return { success: true, packages_installed: [], error: "" };
      try {
        await call.host.plugins.installInto(call.tenant, wanted, call.signal);
        return { success: true, packages_installed: wanted, error: "" };
      } catch (thrown) {
        if (!(thrown instanceof ToolFailure)) throw thrown;
        return { success: false, packages_installed: [], error: thrown.message };
      }
    },
  }),

  "plugin.from_template": tool<{ template: string; config?: Record<string, unknown> }>({
    about: "Makes a plugin from a template; config.name names it.",
    input: object({
      template: str("", { enum: Object.keys(templates) }),
      "config?": any("Goes into the script as CONFIG."),
    }),
    output: object({ success: bool(), plugin_name: str(), tool_name: str() }),
    changes: true,
    prepare: ({ template, config }, call) => gone(nameFor(template, config), call),
    async run({ template, config = {} }, call) {
      const chosen = templates[template];
      if (chosen === undefined) throw new ToolFailure(`plugin.from_template: there is no template ${template}`);
      const plugin_name = nameFor(template, config);
      const code = `import json\n\nCONFIG = json.loads(${JSON.stringify(JSON.stringify(config))})\n\n${chosen.code}`;
      const { tool_name } = await call.host.plugins.create(call.tenant, {
        name: plugin_name,
        description: chosen.about,
        code,
        author: call.agent,
        output_mode: "pipe",
      });
      return { success: true, plugin_name, tool_name };
    },
  }),
};

/** A new plugin is undone by deleting it; one that is there is not replaced. */
async function gone(name: string, call: Call): Promise<readonly Step[]> {
  if (await call.host.plugins.exists(call.tenant, name))
    throw new ToolFailure(`${call.tool}: the plugin ${name} already exists`);
  return [{ op: "run", tool: "plugin.delete", input: { name } }];
}

function nameFor(template: string, config: unknown): string {
  const named = typeof config === "object" && config !== null && "name" in config ? config.name : undefined;
  if (named !== undefined && (typeof named !== "string" || !/^\w{1,64}$/.test(named)))
    throw new ToolFailure("plugin.from_template: config.name must be letters, digits and underscores");
  return named ?? template;
}

async function install(dependencies: readonly string[], call: Call): Promise<boolean> {
  if (dependencies.length === 0) return true;
  return call.host.plugins.installInto(call.tenant, dependencies, call.signal).then(
    () => true,
    () => false,
  );
}
