/**
 * Reading a `ProviderRequest` (BeamLine, provider): the body is JSON or plain text, the parameters are text.
 *
 * | body | is |
 * |---|---|
 * | `{messages: [{role, content}]}` | chat |
 * | `{text, role?}` | chat of one turn |
 * | `{prompt, max_tokens?, temperature?}` | completion |
 * | `{input: text or texts}` | embedding |
 * | anything else | its text is the prompt |
 *
 * A parameter goes before the same setting in the body.
 */
import type { ProviderRequest } from "../../contracts/gen/beamline/provider/v1/provider.ts";
import type { JsonObject } from "../../contracts/codec.ts";
import { invalidArgument } from "../../contracts/errors.ts";
import type { Question, Role, Turn } from "./provider.ts";

const roles = new Set<string>(["system", "user", "assistant"]);

/** Throws `invalid_argument` naming the field. */
export function questionOf(request: ProviderRequest, model: string): Question {
  const text = request.body.toString("utf8");
  if (text === "") throw invalidArgument("body", "is required");
  const body = objectIn(text);
  const { parameters, metadata } = request;
  const setting = (name: string): unknown => parameters[name] ?? body?.[name];
  const inputs = inputsIn(body);
  const common = {
    model: parameters["model"] ?? (typeof body?.["model"] === "string" ? body["model"] : model),
    maxTokens: number(setting("max_tokens"), "max_tokens", 1, 10_000_000, true),
    temperature: number(setting("temperature"), "temperature", 0, 2),
    topP: number(setting("top_p"), "top_p", 0, 1),
    stop: stopsIn(setting("stop")),
    json: parameters["response_format"] === "json_object" || isJsonFormat(body?.["response_format"]),
    tenant: request.tenant_id,
    traceId: request.trace_id,
    labels: metadata,
  };
  if (inputs !== undefined) return { kind: "embedding", turns: [], inputs, ...common };
  return {
    kind: "chat",
    turns: turnsIn(body, text, parameters["system_prompt"] ?? parameters["system"]),
    inputs: [],
    ...common,
  };
}

function objectIn(text: string): JsonObject | undefined {
  if (!/^\s*\{/.test(text)) return undefined;
  try {
    const parsed: unknown = JSON.parse(text);
    return typeof parsed === "object" && parsed !== null ? (parsed as JsonObject) : undefined;
  } catch {
    return undefined;
  }
}

function inputsIn(body: JsonObject | undefined): readonly string[] | undefined {
  const input = body?.["input"];
  if (input === undefined || body?.["messages"] !== undefined || body?.["prompt"] !== undefined) return undefined;
  const inputs = typeof input === "string" ? [input] : input;
  if (!Array.isArray(inputs) || inputs.length === 0)
    throw invalidArgument("body.input", "must be a text or a list of texts");
  return inputs.map((one: unknown, at) => {
    if (typeof one !== "string" || one === "") throw invalidArgument(`body.input[${at}]`, "must be a text");
    return one;
  });
}

function turnsIn(body: JsonObject | undefined, text: string, system: string | undefined): readonly Turn[] {
  const before: Turn[] = system === undefined || system === "" ? [] : [{ role: "system", content: system }];
  const messages = body?.["messages"];
  if (messages !== undefined) {
    if (!Array.isArray(messages) || messages.length === 0)
      throw invalidArgument("body.messages", "must be a list of messages");
    return [...before, ...messages.map(turnOf)];
  }
  const own = body?.["system_prompt"] ?? body?.["system"];
  if (typeof own === "string" && own !== "" && before.length === 0) before.push({ role: "system", content: own });
  const said = body?.["text"] ?? body?.["prompt"];
  if (said === undefined) return [...before, { role: "user", content: text }];
  if (typeof said !== "string" || said === "")
    throw invalidArgument(body?.["text"] === undefined ? "body.prompt" : "body.text", "must be a text");
  return [...before, { role: roleOf(body?.["role"] ?? "user", "body.role"), content: said }];
}

function turnOf(given: unknown, at: number): Turn {
  const { role, content } = (typeof given === "object" && given !== null ? given : {}) as JsonObject;
  if (typeof content !== "string") throw invalidArgument(`body.messages[${at}].content`, "must be a text");
  return { role: roleOf(role ?? "user", `body.messages[${at}].role`), content };
}

function roleOf(role: unknown, path: string): Role {
  if (typeof role === "string" && roles.has(role)) return role as Role;
  throw invalidArgument(path, "must be system, user or assistant");
}

function number(value: unknown, name: string, min: number, max: number, whole = false): number | undefined {
  if (value === undefined || value === null || value === "") return undefined;
  const given = typeof value === "string" ? Number(value) : value;
  if (typeof given !== "number" || !(given >= min && given <= max) || (whole && !Number.isInteger(given))) {
    throw invalidArgument(`parameters.${name}`, `must be a ${whole ? "whole " : ""}number from ${min} to ${max}`);
  }
  return given;
}

function stopsIn(value: unknown): readonly string[] {
  if (typeof value === "string" && value !== "") return [value];
  return Array.isArray(value) ? value.filter((one): one is string => typeof one === "string") : [];
}

function isJsonFormat(value: unknown): boolean {
  return typeof value === "object" && value !== null && "type" in value && value.type === "json_object";
}
