/** Node types that reach outside: each call is an effect of the invocation log. */
import { BeamlineError } from "../../../contracts/errors.ts";
import type { Headers } from "../../../contracts/headers.ts";
import { isObject, numberOr, objectOr, textOr, type Json } from "../../../contracts/openwop/json.ts";
import type { Egress } from "../../../runtime/egress.ts";
import type { Clock } from "../../../runtime/clock.ts";
import type { Artifacts } from "../artifacts.ts";
import { completed, failed, type EffectOptions, type NodeCall, type NodeType } from "../engine/nodetype.ts";
import { needsText } from "./basic.ts";
import { headersOf } from "./headers.ts";
import { callPrompt } from "./prompt.ts";

export interface Outside {
  readonly egress: Egress;
  readonly clock: Clock;
  readonly artifacts: Artifacts;
  /** A call to another worker over the bus. One that is idempotent is made again when the bus was lost meanwhile. */
  request(
    subject: string,
    body: Json,
    headers: Headers,
    timeoutMs: number,
    signal: AbortSignal,
    options?: Partial<Pick<EffectOptions, "idempotent">>,
  ): Promise<Json>;
  /** A call whose answer comes in pieces. */
  stream(subject: string, body: Json, headers: Headers, timeoutMs: number, signal: AbortSignal): AsyncIterable<Json>;
  /** What a model call used; `usd` is an estimate, 0 when nobody knows the price. */
  tokens(provider: string, input: number, output: number, usd: number): void;
}

const DEFAULT_MS = 60_000;
const READS = new Set(["GET", "HEAD", "OPTIONS"]);

export function outsideNodes(outside: Outside): readonly NodeType[] {
  const ask: Ask = async (call, subject, body, invocationId, options) =>
    outside.request(
      subject,
      body,
      headersOf(call, invocationId),
      numberOr(call.config["timeoutMs"], DEFAULT_MS),
      call.signal,
      options,
    );
  const asked = (call: NodeCall, options: EffectOptions, subject: string, body: Json): Promise<Json> =>
    call.effect(options, (id) => ask(call, subject, body, id, options));

  /** `config {url, method?, headers?, body?, timeoutMs?, maxBytes?}`. Only public addresses; the answer's body is parsed when it is JSON. */
  const http: NodeType = {
    typeId: "core.http",
    mode: "task",
    async run(call) {
      const { config, inputs } = call;
      const url = textOr(config["url"] ?? inputs["url"], "");
      const method = textOr(config["method"], "GET").toUpperCase();
      const payload = config["body"] ?? inputs["body"];
      const body = payload === undefined ? undefined : typeof payload === "string" ? payload : JSON.stringify(payload);
      const answer = await call.effect(
        { provider: `http:${hostOf(url)}`, idempotent: READS.has(method) || config["idempotent"] === true },
        async (id) => {
          const headers: Record<string, string> = {
            ...(body !== undefined && typeof payload !== "string" && { "content-type": "application/json" }),
            ...textsOf(config["headers"]),
            traceparent: call.traceparent,
          };
          if (!READS.has(method)) headers["idempotency-key"] = id;
          const got = await outside.egress.fetch(url, {
            method,
            headers,
            ...(body !== undefined && { body }),
            timeoutMs: numberOr(config["timeoutMs"], 30_000),
            maxBytes: numberOr(config["maxBytes"], 1024 * 1024),
            signal: call.signal,
          });
          if (got.status >= 500 || got.status === 429)
            throw new BeamlineError("unavailable", `${hostOf(url)} answered ${got.status}`, {
              details: { status: got.status },
            });
          return {
            status: got.status,
            headers: got.headers,
            text: got.body.toString("utf8"),
            truncated: got.truncated,
          };
        },
      );
      const outputs = {
        status: answer.status,
        ok: answer.status < 400,
        headers: answer.headers,
        body: parsed(answer.text, answer.headers["content-type"]),
        truncated: answer.truncated,
      };
      if (answer.status >= 400 && config["failOnError"] !== false)
        return failed("http_error", `${hostOf(url)} answered ${answer.status}`, {
          retryable: false,
          details: { status: answer.status },
        });
      return completed({ ...outputs, output: outputs.body });
    },
    check: (node, field) => {
      if (node.inputs["url"] === undefined) needsText(node.config, field, "url");
    },
  };

  /** Any registered tool: `config {tool, input?, reason?}`. The tool worker does not run the same execution twice. */
  const tool: NodeType = {
    typeId: "core.tool",
    mode: "task",
    async run(call) {
      const { config, inputs, state } = call;
      const name = textOr(config["tool"] ?? config["toolName"], "");
      const input = { ...objectOr(config["input"]), ...inputs };
      const reply = await asked(call, { provider: `tool:${name}`, idempotent: true }, "aios.tools.v1.execute", {
        tool_name: name,
        agent_id: textOr(config["agentId"], `run:${state.record.workflowId}`),
        task_id: state.record.runId,
        input_json: JSON.stringify(input),
        reason: textOr(config["reason"], `node ${call.node.id}`),
      });
      if (reply["success"] !== true)
        return failed("tool_failed", textOr(reply["error"], `tool ${name} failed`), {
          retryable: false,
          details: { tool: name, executionId: reply["execution_id"] },
        });
      const output = parsed(textOr(reply["output_json"], "null"), "application/json");
      return completed({ ...(isObject(output) ? output : {}), output, executionId: reply["execution_id"] });
    },
    check: (node, field) => needsText(node.config, field, "tool", "toolName"),
  };

  const search: NodeType = {
    typeId: "core.memory.search",
    mode: "task",
    async run(call) {
      const { config, inputs } = call;
      const body = {
        query: textOr(inputs["query"] ?? config["query"], ""),
        collections: textList(config["collections"]),
        n_results: numberOr(config["limit"], 10),
        min_relevance: numberOr(config["minRelevance"], 0),
      };
      const reply = await asked(call, { provider: "memory", idempotent: true }, "aios.memory.v1.semantic_search", body);
      const results = Array.isArray(reply["results"]) ? reply["results"] : [];
      return completed({ results, output: results });
    },
  };

  const add: NodeType = {
    typeId: "core.memory.add",
    mode: "task",
    async run(call) {
      const { config, inputs, node } = call;
      const content = textOr(inputs["content"] ?? inputs["input"] ?? config["content"], "");
      const title = textOr(inputs["title"] ?? config["title"], node.name);
      const source = `run:${call.state.record.runId}`;
      const body = { title, content, source, tags: textList(config["tags"]) };
      const reply = await asked(call, { provider: "memory", idempotent: false }, "aios.memory.v1.add_knowledge", body);
      return completed(reply);
    },
  };

  const decide: NodeType = {
    typeId: "core.router.decide",
    mode: "task",
    async run(call) {
      const { config, inputs, state } = call;
      const payload = inputs["payload"] ?? inputs["input"] ?? config["payload"] ?? {};
      const message = {
        tenant_id: state.record.owner.tenant,
        message_id: `${state.record.runId}:${call.node.id}`,
        message_type: textOr(config["messageType"], "chat"),
        payload: JSON.stringify(payload),
        metadata: textsOf(config["metadata"]),
      };
      const options = { provider: "router", idempotent: true };
      // The request is named by the effect.
      const reply = await call.effect(options, (id) =>
        ask(
          call,
          "beamline.router.v1.decide",
          {
            version: "1",
            tenant_id: message.tenant_id,
            request_id: id,
            message,
            ...(typeof config["policyId"] === "string" && { policy_id: config["policyId"] }),
          },
          id,
          options,
        ),
      );
      return completed({ ...reply, output: reply });
    },
  };

  /** Stores a file: `config {artifactId?, contentType?, content}` or its input `content`. */
  const artifact: NodeType = {
    typeId: "core.artifact",
    mode: "task",
    async run(call) {
      const { config, inputs, node, state } = call;
      const value = inputs["content"] ?? inputs["input"] ?? config["content"] ?? "";
      const isText = typeof value === "string";
      const artifactId = textOr(config["artifactId"], `${node.id}-${call.own.iterations}`);
      const contentType = textOr(config["contentType"], isText ? "text/plain; charset=utf-8" : "application/json");
      const content = Buffer.from(isText ? value : JSON.stringify(value));
      const { tenant } = state.record.owner;
      const event = await outside.artifacts.put(
        tenant,
        state.record.runId,
        node.id,
        { artifactId, contentType, content },
        textOr(config["artifactType"], "document"),
        typeof config["summary"] === "string" ? config["summary"] : undefined,
      );
      return { kind: "completed", outputs: { artifactId, contentType, size: content.length }, events: [event] };
    },
  };

  return [http, tool, callPrompt(outside, ask), search, add, decide, artifact];
}

/** Asks another worker, for a node. */
export type Ask = (
  call: NodeCall,
  subject: string,
  body: Json,
  invocationId: string,
  options?: Partial<Pick<EffectOptions, "idempotent">>,
) => Promise<Json>;

function textsOf(value: unknown): Record<string, string> {
  return Object.fromEntries(Object.entries(objectOr(value)).map(([name, one]) => [name, String(one)]));
}

function textList(value: unknown): string[] {
  return Array.isArray(value) ? value.map(String) : [];
}

function hostOf(url: string): string {
  return URL.parse(url)?.host ?? "invalid";
}

function parsed(text: string, contentType: string | undefined): unknown {
  if (contentType?.includes("json") !== true) return text;
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}
