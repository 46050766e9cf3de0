/**
 * Which tools there are: the built-in catalogue and what was registered from outside (aiOS tools, 1.1). What is registered lives in a
 * bucket, is seen by every worker at once, and never stands in for a built-in tool.
 */
import { keyOf } from "../../bus/keys.ts";
import { BeamlineError } from "../../contracts/errors.ts";
import type { ToolDefinition } from "../../contracts/gen/aios/tools.ts";
import type { Clock } from "../../runtime/clock.ts";
import type { Bucket } from "./bucket.ts";
import { catalogue } from "./catalogue/index.ts";
import { facts, type Fact, type Risk, type ToolName } from "./catalogue/facts.ts";
import { isObject } from "./journal.ts";
import { compile, compileForeign, type Check } from "./schema.ts";
import type { PluginMeta } from "./plugins/plugins.ts";
import type { Call, Handler, Json } from "./tool.ts";

/** A tool ready to be run. */
export interface Offered {
  readonly definition: ToolDefinition;
  /** Capabilities that decide. */
  readonly needs: readonly string[];
  readonly checkedRisk: Risk;
  readonly handler: Pick<Handler, "changes" | "paths" | "aliases" | "prepare" | "run" | "seen">;
  readonly checkInput: Check;
  readonly checkOutput: Check;
  readonly builtIn: boolean;
}

/** A registration as it is stored. Schemas are text here, `""` when absent. */
export interface Registered {
  readonly definition: Omit<ToolDefinition, "input_schema" | "output_schema"> & {
    readonly input_schema: string;
    readonly output_schema: string;
  };
  /** gRPC `host:port`, `nats:<subject>`, or `mcp:<server>/<tool>`. */
  readonly handler_address: string;
  readonly registered_at: number;
  readonly registered_by: string;
  /** The script and its facts, for a plugin. */
  readonly plugin?: PluginMeta;
  /** Where the MCP server is, for a tool imported over HTTP. */
  readonly mcp?: { readonly url: string; readonly headers?: Readonly<Record<string, string>> };
}

/** Whether that is a registration as it is stored. */
export function isRegistered(value: unknown): value is Registered {
  if (!isObject(value) || typeof value["handler_address"] !== "string") return false;
  const { definition } = value;
  if (!isObject(definition) || !Array.isArray(definition["required_capabilities"])) return false;
  const texts = ["name", "namespace", "version", "risk_level", "input_schema", "output_schema", "rollback_tool"];
  return texts.every((name) => typeof definition[name] === "string");
}

/** How a registered tool is reached. */
export interface Outside {
  /** Throws `BeamlineError` when the address cannot be a handler's or may not be reached. */
  check(address: string): Promise<void>;
  run(registered: Registered, input: Json, call: Call): Promise<Json>;
}

export const VERSION_OF_BUILT_INS = "1.0.0";
const RISKS: readonly string[] = ["low", "medium", "high", "critical"] satisfies Risk[];
const NAME = /^[a-z][a-z0-9_-]{0,62}\.[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$/;
/** Longest run of a registered tool, milliseconds: a caller waits no longer than that. */
const MAX_TIMEOUT_MS = 300_000;
const DEFAULT_TIMEOUT_MS = 30_000;
const MAX_DESCRIPTION = 8_192;
const MAX_VERSION = 64;
/** They are part of every audit row of the tool. */
const MAX_CAPABILITIES = 64;
const MAX_CAPABILITY = 64;
const MAX_TOOLS = 1_000;

const builtIns: ReadonlyMap<string, Offered> = new Map(
  (Object.entries(facts) as [ToolName, Fact][]).map(([name, fact]) => [name, offer(name, fact, catalogue[name])]),
);

export class Registry {
  readonly #bucket: Bucket<Registered>;
  readonly #outside: Outside;
  readonly #clock: Clock;
  /** Made once per registration: compiling schemas is dear. */
  readonly #compiled = new Map<string, { readonly revision: number; readonly offered: Offered }>();

  constructor(bucket: Bucket<Registered>, outside: Outside, clock: Clock) {
    this.#bucket = bucket;
    this.#outside = outside;
    this.#clock = clock;
  }

  /** Ordered by name; an unknown namespace has none. */
  async list(tenant: string, namespace: string): Promise<ToolDefinition[]> {
    const registered = await this.#bucket.entries(keyOf(tenant));
    return [
      ...[...builtIns.values()].map(({ definition }) => definition),
      ...registered.map(({ value }) => definitionOf(value)),
    ]
      .filter((definition) => namespace === "" || definition.namespace === namespace)
      .sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  /** A tool by its full name; undefined when there is none. Built-in ones cost nothing to look up. */
  async find(tenant: string, name: string): Promise<Offered | undefined> {
    const builtIn = builtIns.get(name);
    if (builtIn !== undefined || !NAME.test(name)) return builtIn;
    const key = keyOf(tenant, name);
    const { value, revision } = await this.#bucket.get(key);
    if (value === undefined) return undefined;
    const before = this.#compiled.get(key);
    if (before?.revision === revision) return before.offered;
    const offered = this.#offer(value);
    if (this.#compiled.size >= MAX_TOOLS) this.#compiled.clear();
    this.#compiled.set(key, { revision, offered });
    return offered;
  }

  /** Adds or replaces a tool. Throws `BeamlineError` naming the field when it cannot be one. */
  async register(tenant: string, given: ToolDefinition, address: string, by: string): Promise<void> {
    const definition = complete(given);
    compileForeign(definition.input_schema, "tool.input_schema");
    compileForeign(definition.output_schema, "tool.output_schema");
    refuseOtherThanObjects(definition.input_schema);
    await this.#outside.check(address);
    const registered = { definition, handler_address: address, registered_at: this.#clock.now(), registered_by: by };
    await this.#bucket.update(keyOf(tenant, definition.name), () => registered);
  }

  /** Adds a tool whose handler is ours to know, an imported one. Throws `invalid_argument` when it cannot be a tool. */
  async adopt(
    tenant: string,
    given: ToolDefinition,
    more: Omit<Registered, "definition" | "registered_at">,
  ): Promise<void> {
    const definition = complete(given);
    compileForeign(definition.input_schema, "tool.input_schema");
    const registered = { ...more, definition, registered_at: this.#clock.now() };
    await this.#bucket.update(keyOf(tenant, definition.name), () => registered);
  }

  /** False when there was no such tool. Throws `failed_precondition` for a built-in one. */
  async deregister(tenant: string, name: string): Promise<boolean> {
    if (builtIns.has(name))
      throw new BeamlineError("failed_precondition", `${name} is built in and stays`, { field: "tool_name" });
    if (!NAME.test(name)) return false;
    const key = keyOf(tenant, name);
    const { value, revision } = await this.#bucket.get(key);
    if (value === undefined) return false;
    await this.#bucket.delete(key, revision);
    return true;
  }

  #offer(registered: Registered): Offered {
    const definition = definitionOf(registered);
    const rollback = definition.rollback_tool;
    return {
      definition,
      needs:
        registered.plugin !== undefined
          ? ["plugin_execute"]
          : definition.required_capabilities.map((name) => name.replaceAll(/[.:]/g, "_")),
      checkedRisk: definition.risk_level as Risk,
      handler: {
        changes: !definition.idempotent || definition.reversible,
        run: (input, call) => this.#outside.run(registered, input, call),
        ...(definition.reversible &&
          rollback !== "" && {
            prepare: async (input: Json, call: Call) => [
              { op: "run" as const, tool: rollback, input: { ...input, execution_id: call.executionId } },
            ],
          }),
      },
      checkInput: compileForeign(registered.definition.input_schema, "input_schema"),
      checkOutput: compileForeign(registered.definition.output_schema, "output_schema"),
      builtIn: false,
    };
  }
}

/** Every built-in tool, ordered by name. */
export function builtInTools(): Offered[] {
  return [...builtIns.values()].sort((a, b) => (a.definition.name < b.definition.name ? -1 : 1));
}

function offer(name: ToolName, fact: Fact, handler: Handler): Offered {
  return {
    definition: {
      name,
      namespace: name.slice(0, name.indexOf(".")),
      version: VERSION_OF_BUILT_INS,
      description: handler.about,
      input_schema: Buffer.from(JSON.stringify(dated(handler.input))),
      output_schema: Buffer.from(JSON.stringify(dated(handler.output))),
      required_capabilities: fact.declared.split(" "),
      risk_level: fact.risk,
      requires_confirmation: fact.risk === "critical",
      idempotent: fact.idempotent,
      reversible: fact.reversible,
      timeout_ms: fact.timeoutMs,
      rollback_tool: "",
    },
    needs: fact.needs.split(" "),
    checkedRisk: fact.checked ?? fact.risk,
    handler,
    checkInput: compile(handler.input),
    checkOutput: compile(handler.output),
    builtIn: true,
  };
}

function dated(schema: Json): Json {
  return { $schema: "https://json-schema.org/draft/2020-12/schema", ...schema };
}

/** A definition from outside with its defaults. Throws `invalid_argument` naming the field. */
function complete(given: ToolDefinition): Registered["definition"] {
  const refuse = (field: string, what: string): never => {
    throw new BeamlineError("invalid_argument", `tool.${field} ${what}`, { field: `tool.${field}` });
  };
  if (!NAME.test(given.name)) refuse("name", "must be <namespace>.<action> in letters, digits, dash and underscore");
  const namespace = given.name.slice(0, given.name.indexOf("."));
  if (given.namespace !== "" && given.namespace !== namespace)
    refuse("namespace", `must be ${namespace}, the part of the name before the dot`);
  if (builtIns.has(given.name)) refuse("name", `${given.name} is built in and cannot be replaced`);
  if (builtInNamespaces.has(namespace)) refuse("namespace", `${namespace} belongs to the built-in tools`);
  if (given.risk_level !== "" && !RISKS.includes(given.risk_level))
    refuse("risk_level", `must be one of ${RISKS.join(", ")}`);
  if (given.timeout_ms < 0 || given.timeout_ms > MAX_TIMEOUT_MS)
    refuse("timeout_ms", `must be from 0 to ${MAX_TIMEOUT_MS}`);
  if (given.description.length > MAX_DESCRIPTION) refuse("description", `is longer than ${MAX_DESCRIPTION} characters`);
  if (given.version.length > MAX_VERSION) refuse("version", `is longer than ${MAX_VERSION} characters`);
  if (given.required_capabilities.length > MAX_CAPABILITIES)
    refuse("required_capabilities", `has more than ${MAX_CAPABILITIES} entries`);
  if (given.required_capabilities.some((each) => each === "" || each.length > MAX_CAPABILITY))
    refuse("required_capabilities", `must have entries of 1 to ${MAX_CAPABILITY} characters`);
  if (given.rollback_tool !== "" && !NAME.test(given.rollback_tool))
    refuse("rollback_tool", "is not the name of a tool");
  return {
    ...given,
    namespace,
    version: given.version === "" ? "1.0.0" : given.version,
    risk_level: given.risk_level === "" ? "medium" : given.risk_level,
    timeout_ms: given.timeout_ms === 0 ? DEFAULT_TIMEOUT_MS : given.timeout_ms,
    reversible: given.reversible && given.rollback_tool !== "",
    input_schema: given.input_schema.toString("utf8"),
    output_schema: given.output_schema.toString("utf8"),
  };
}

/** Inputs are objects: no input could ever match a schema that says otherwise. Throws `invalid_argument`. */
function refuseOtherThanObjects(text: string): void {
  const { type } = (text === "" ? {} : JSON.parse(text)) as { type?: unknown };
  if (type === undefined || [type].flat().includes("object")) return;
  throw new BeamlineError("invalid_argument", "tool.input_schema must be of type object, as inputs are", {
    field: "tool.input_schema",
  });
}

const builtInNamespaces = new Set(Object.keys(facts).map((name) => name.slice(0, name.indexOf("."))));

function definitionOf({ definition }: Registered): ToolDefinition {
  return {
    ...definition,
    input_schema: Buffer.from(definition.input_schema),
    output_schema: Buffer.from(definition.output_schema),
  };
}
