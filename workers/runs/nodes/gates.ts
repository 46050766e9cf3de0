/** Node types that ask and wait (OpenWOP, interrupts). */
import { isObject, objectOr, textOr, type Json } from "../../../contracts/openwop/json.ts";
import { completed, failed, type NodeResult, type NodeType } from "../engine/nodetype.ts";
import { BeamlineError } from "../../../contracts/errors.ts";
import { schemaOf } from "../engine/schemas.ts";

/** What an approval may be answered with. */
export const APPROVAL_ACTIONS = ["accept", "reject", "refine", "edit-accept", "ask"] as const;

/** Kinds of questions there are. */
export const INTERRUPT_KINDS = [
  "approval",
  "clarification",
  "external-event",
  "custom",
  "conversation.start",
  "conversation.exchange",
  "conversation.close",
  "low-confidence",
] as const;

const approvalGate: NodeType = {
  typeId: "core.approvalGate",
  mode: "instant",
  run({ config, node, inputs }) {
    checkApproval(config, "config");
    const { title, description, artifactId, artifactType, artifactData, actions, timeoutMs, ...rest } = config;
    const data: Json = {
      artifactId: textOr(artifactId, node.id),
      artifactType: textOr(artifactType, "approval"),
      title: textOr(title, node.name),
      ...(typeof description === "string" && { description }),
      ...((artifactData ?? inputs["artifact"] ?? inputs["input"]) !== undefined && {
        artifactData: artifactData ?? inputs["artifact"] ?? inputs["input"],
      }),
      actions: Array.isArray(actions) && actions.length > 0 ? actions : ["accept", "reject"],
      requiredApprovals: typeof rest["requiredApprovals"] === "number" ? rest["requiredApprovals"] : 1,
      ...(Array.isArray(rest["approversList"]) && { approversList: rest["approversList"] }),
      ...(typeof rest["rejectionPolicy"] === "string" && { rejectionPolicy: rest["rejectionPolicy"] }),
      ...(typeof rest["profile"] === "string" && { profile: rest["profile"] }),
    };
    return {
      kind: "asks",
      question: { kind: "approval", data, ...(typeof timeoutMs === "number" && timeoutMs > 0 && { timeoutMs }) },
    };
  },
  resume: (_call, value) => approvalOutcome(objectOr(value)),
  check: ({ config }, field) => checkApproval(withoutTemplates(config), `${field}.config`),
};

/** Who may approve is not looked up here: what would restrict it must not be overlooked. */
const ROUTED = ["approverGroupRefs", "approverRoleRefs", "audience", "requiredRole", "requiredScope", "override"];

/** A gate that says something else than it seems to would let through what it should hold back. Throws, naming the member. */
function checkApproval(config: Json, field: string): void {
  const wrong = (name: string, what: string): BeamlineError => invalid(`${field}.${name}`, what);
  const { actions, requiredApprovals, approversList, rejectionPolicy, profile } = config;
  const known: readonly unknown[] = APPROVAL_ACTIONS;
  if (actions !== undefined) {
    const good = Array.isArray(actions) && actions.every((action) => known.includes(action));
    if (!good || !actions.some((action) => action !== "ask"))
      throw wrong("actions", `must be some of ${APPROVAL_ACTIONS.join(", ")}, and not ask alone`);
  }
  if (requiredApprovals !== undefined && !(Number.isInteger(requiredApprovals) && Number(requiredApprovals) >= 1))
    throw wrong("requiredApprovals", "must be a whole number of at least 1");
  if (approversList !== undefined) {
    if (!Array.isArray(approversList) || !approversList.every((one) => typeof one === "string" && one !== ""))
      throw wrong("approversList", "must be a list of texts");
    const enough = approversList.length === 0 || new Set(approversList).size >= Number(requiredApprovals ?? 1);
    if (!enough) throw wrong("approversList", "names fewer than requiredApprovals");
  }
  if (rejectionPolicy !== undefined && rejectionPolicy !== "single-veto" && rejectionPolicy !== "majority")
    throw wrong("rejectionPolicy", "must be single-veto or majority");
  if (profile !== undefined && typeof profile !== "string") throw wrong("profile", "must be a text");
  const routed = ROUTED.find((name) => config[name] !== undefined);
  if (routed !== undefined) {
    throw new BeamlineError(
      "capability_required",
      `${field}.${routed} needs the capability interrupt.approverRouting`,
      {
        field: `${field}.${routed}`,
        details: { requiredCapability: "interrupt.approverRouting" },
      },
    );
  }
  checkTimeout(config, field);
}

function checkTimeout({ timeoutMs }: Json, field: string): void {
  if (timeoutMs === undefined || (typeof timeoutMs === "number" && timeoutMs > 0)) return;
  throw invalid(`${field}.timeoutMs`, "must be a number of milliseconds greater than 0");
}

/** What is known of a configuration before its run: the rest is checked when it is filled in. */
function withoutTemplates(config: Json): Json {
  return Object.fromEntries(Object.entries(config).filter(([, value]) => !JSON.stringify(value).includes("{{")));
}

/** How the gate goes on: accepted ones complete, refused ones fail. */
function approvalOutcome(answer: Json): NodeResult {
  const action = textOr(answer["action"], "");
  const { decidedBy } = answer;
  if (action === "reject" || action === "timeout") {
    const reason =
      action === "timeout"
        ? "timeout"
        : textOr(answer["feedback"] ?? answer["comment"] ?? answer["reason"], "rejected");
    return failed("approval_rejected", action === "timeout" ? "nobody decided in time" : "the approval was refused", {
      retryable: false,
      details: { reason, ...(decidedBy !== undefined && { decidedBy }) },
    });
  }
  return completed({ ...answer, action, approved: action !== "refine" });
}

const clarificationGate: NodeType = {
  typeId: "core.clarificationGate",
  mode: "instant",
  run({ config }) {
    checkTimeout(config, "config");
    const questions = Array.isArray(config["questions"]) ? (config["questions"] as unknown[]) : [];
    const { timeoutMs } = config;
    const data = {
      questions,
      ...(typeof config["contextType"] === "string" && { contextType: config["contextType"] }),
    };
    return {
      kind: "asks",
      question: { kind: "clarification", data, ...(typeof timeoutMs === "number" && timeoutMs > 0 && { timeoutMs }) },
    };
  },
  resume: (_call, value) => (isTimeout(value) ? timedOut() : completed({ answers: answersOf(value) })),
  check(node, field) {
    checkTimeout(withoutTemplates(node.config), `${field}.config`);
    const { questions } = node.config;
    const good =
      Array.isArray(questions) &&
      questions.length > 0 &&
      questions.every((one) => isObject(one) && textOr(one["id"], "") !== "" && textOr(one["question"], "") !== "");
    if (!good) throw invalid(`${field}.config.questions`, "must be at least one {id, question}");
    questions
      .filter(isObject)
      .forEach(({ schema }, at) => checkSchema(schema, `${field}.config.questions[${at}].schema`));
  },
};

/** Answers as a map, whichever of the two spellings they came in. */
export function answersOf(value: unknown): Json {
  const answers = objectOr(value)["answers"];
  if (isObject(answers)) return answers;
  if (!Array.isArray(answers)) return {};
  return Object.fromEntries(answers.filter(isObject).map((one) => [String(one["id"]), one["answer"]]));
}

/** Any kind of question, as its configuration says. */
const interrupt: NodeType = {
  typeId: "core.interrupt",
  mode: "instant",
  run({ config }) {
    checkTimeout(config, "config");
    const { kind, data, timeoutMs, resumeSchema, profile } = config;
    if (kind === "approval") checkApproval(objectOr(data), "config.data");
    const question = {
      kind: textOr(kind, "custom"),
      data: { ...objectOr(data), ...(typeof profile === "string" && { profile }) },
      ...(isObject(resumeSchema) && { resumeSchema }),
      ...(typeof timeoutMs === "number" && timeoutMs > 0 && { timeoutMs }),
    };
    return { kind: "asks", question };
  },
  resume({ config }, value) {
    if (config["kind"] === "approval") return approvalOutcome(objectOr(value));
    if (isTimeout(value)) return timedOut();
    return completed(isObject(value) ? value : { value });
  },
  check(node, field) {
    const known: readonly unknown[] = INTERRUPT_KINDS;
    if (!known.includes(node.config["kind"] ?? "custom"))
      throw invalid(`${field}.config.kind`, `must be one of ${INTERRUPT_KINDS.join(", ")}`);
    const { kind, data, ...rest } = withoutTemplates(node.config);
    checkTimeout(rest, `${field}.config`);
    if (kind === "approval") checkApproval(objectOr(data), `${field}.config.data`);
    checkSchema(node.config["resumeSchema"], `${field}.config.resumeSchema`);
    checkSchema(objectOr(node.config["data"])["outcomeSchema"], `${field}.config.data.outcomeSchema`);
  },
};

/** The answer the engine gives when a question ran out of time. */
export const TIMED_OUT = { action: "timeout", decidedBy: "system" } as const;

export function isTimeout(value: unknown): boolean {
  return isObject(value) && value["action"] === "timeout" && value["decidedBy"] === "system";
}

function timedOut(): NodeResult {
  return failed("interrupt_expired", "nobody answered in time", { retryable: false, details: { reason: "timeout" } });
}

/** A schema nobody can read would refuse every answer. One with templates is known when it is asked. */
function checkSchema(schema: unknown, field: string): void {
  if (isObject(schema) && !JSON.stringify(schema).includes("{{")) schemaOf(schema, field);
}

function invalid(field: string, what: string): BeamlineError {
  return new BeamlineError("validation_error", `${field} ${what}`, { field });
}

export const gateNodes: readonly NodeType[] = [approvalGate, clarificationGate, interrupt];
