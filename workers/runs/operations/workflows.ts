/** Registering workflows: checked whole before anything is stored (our own addition; the contract leaves seeding to the host). */
import { isObject, type Json } from "../../../contracts/openwop/json.ts";
import { workflowSchema } from "../../../contracts/openwop/workflow.schema.ts";
import type { WorkflowDefinition, WorkflowEdge, WorkflowNode } from "../../../contracts/openwop/workflow.ts";
import { BeamlineError } from "../../../contracts/errors.ts";
import { invalid } from "../body.ts";
import { permit, type Answer, type Asker } from "../caller.ts";
import { checkChannels } from "../engine/channels.ts";
import { ownSchema, schemaOf } from "../engine/schemas.ts";
import { checkCondition, checkExpression } from "../engine/expressions.ts";
import { graphOf } from "../engine/graph.ts";
import type { NodeType } from "../engine/nodetype.ts";
import type { RunsPorts } from "../ports.ts";
import { checkTrigger } from "../engine/triggers.ts";
import { GATED } from "./start.ts";

/** Scope of the admin route. */
export const WORKFLOWS_SCOPE = "workflows:manage";

/** Compiled when the first workflow comes. */
let validateWorkflow: ReturnType<typeof ownSchema> | undefined;

/** Largest definition, bytes. */
const MAX_BYTES = 1024 * 1024;

/**
 * Checks a definition. Throws `validation_error` whose field is the path of what is wrong, `capability_required` for node types of
 * capabilities this host does not have. Unknown node types are fine here: they may be registered before the run comes to them.
 */
export function checkWorkflow(given: unknown, nodeTypes: ReadonlyMap<string, NodeType>): WorkflowDefinition {
  if (!isObject(given)) throw invalid("workflow", "must be a JSON object");
  if (Buffer.byteLength(JSON.stringify(given)) > MAX_BYTES)
    throw invalid("workflow", `is larger than ${MAX_BYTES} bytes`);
  const validate = (validateWorkflow ??= ownSchema(workflowSchema));
  if (!validate(given)) {
    // The deepest complaint says most: those of alternatives that were not meant come before it.
    const errors = [...(validate.errors ?? [])].toSorted((a, b) => b.instancePath.length - a.instancePath.length);
    const [first] = errors;
    const path = pathOf(first?.instancePath ?? "");
    const extra: unknown = first?.params["additionalProperty"];
    throw invalid(
      path === "" ? "workflow" : path,
      `${first?.message ?? "is not a workflow"}${typeof extra === "string" ? `: ${extra}` : ""}`,
    );
  }
  const definition = given as unknown as WorkflowDefinition;
  graphOf(definition);
  definition.nodes.forEach((node, at) => checkNode(definition, node, `nodes[${at}]`, nodeTypes));
  definition.edges.forEach((edge, at) => checkEdge(edge, `edges[${at}]`));
  const names = new Set<string>();
  definition.variables.forEach(({ name }, at) => {
    if (names.has(name)) throw invalid(`variables[${at}].name`, `${name} is there twice`);
    names.add(name);
  });
  checkChannels(definition);
  definition.triggers.forEach((trigger, at) => checkTrigger(definition, trigger, `triggers[${at}]`));
  if (definition.configurableSchema !== undefined) schemaOf(definition.configurableSchema, "configurableSchema");
  return definition;
}

/** `/nodes/0/config` as `nodes[0].config`. */
function pathOf(pointer: string): string {
  return pointer
    .split("/")
    .slice(1)
    .map((part, at) =>
      /^\d+$/.test(part) ? `[${part}]` : `${at === 0 ? "" : "."}${part.replaceAll("~1", "/").replaceAll("~0", "~")}`,
    )
    .join("");
}

function checkNode(
  definition: WorkflowDefinition,
  node: WorkflowNode,
  field: string,
  nodeTypes: ReadonlyMap<string, NodeType>,
): void {
  const requiredCapability = GATED[node.typeId];
  if (requiredCapability !== undefined) {
    throw new BeamlineError(
      "capability_required",
      `${field}.typeId ${node.typeId} needs the capability ${requiredCapability}`,
      {
        field: `${field}.typeId`,
        details: { requiredCapability, offendingTypeId: node.typeId, nodeId: node.id },
      },
    );
  }
  for (const [port, value] of Object.entries(node.inputs)) {
    if (value.type === "expression") checkExpression(value.expression, `${field}.inputs.${port}.expression`);
    if (value.type === "connection" && !definition.nodes.some(({ id }) => id === value.nodeId)) {
      throw invalid(`${field}.inputs.${port}.nodeId`, `${value.nodeId} is not a node of the workflow`);
    }
  }
  nodeTypes.get(node.typeId)?.check?.(node, field);
}

function checkEdge({ condition }: WorkflowEdge, field: string): void {
  if (condition !== undefined) checkCondition(condition, `${field}.condition`);
}

/** Our admin route `PUT /v1/workflows/{id}`: 201 for a new version, 200 when it is the current one already. */
export async function applyWorkflow(
  ports: RunsPorts,
  asker: Asker,
  workflowId: string,
  given: unknown,
): Promise<Answer> {
  permit(asker, WORKFLOWS_SCOPE);
  return ports.idempotency.once(asker, "workflows.apply", { workflowId, body: given ?? null }, async () => {
    const definition = checkWorkflow(given, ports.nodeTypes);
    if (definition.id !== workflowId) throw invalid("id", `is not ${workflowId}, which the path names`);
    const at = new Date(ports.clock.now()).toISOString();
    const { current, changed } = await ports.definitions.register(asker.tenant, definition, at);
    const { version, digest, updatedAt } = current;
    if (changed) await ports.audit.record(asker, "workflow.registered", workflowId, { version, digest });
    return { status: changed ? 201 : 200, body: { workflowId, version, digest, changed, updatedAt } };
  });
}

/** Our route `GET /v1/workflows`. */
export async function listWorkflows(ports: RunsPorts, asker: Asker): Promise<Answer> {
  permit(asker, "manifest:read");
  const workflows = (await ports.definitions.list(asker.tenant)).map(
    ({ id, name, version, digest, tenant, updatedAt, history }): Json => ({
      workflowId: id,
      name,
      version,
      digest,
      shared: tenant === "*",
      updatedAt,
      versions: history.length + 1,
    }),
  );
  return { status: 200, body: { workflows } };
}
