/**
 * Tools served elsewhere: by a gRPC server that answers `ToolRegistry/Execute` (`host:port`), by a responder on the bus (`nats:<subject>`), or
 * by an MCP server that was imported (`mcp:<server>/<tool>`).
 */
import type { Caller } from "../../../bus/call.ts";
import { codecOf } from "../../../contracts/codec.ts";
import { BeamlineError, invalidArgument } from "../../../contracts/errors.ts";
import { ExecuteRequest, ExecuteResponse } from "../../../contracts/gen/aios/tools.ts";
import { header } from "../../../contracts/headers.ts";
import type { Egress } from "../../../runtime/egress.ts";
import { executeAt } from "./external.grpc.ts";
import { ToolFailure } from "../failure.ts";
import type { McpServers } from "./mcp.ts";
import type { Outside, Registered } from "../registry.ts";
import type { Call, Json } from "../tool.ts";

/** Where responders on the bus may listen: the tree that outside programs serve. */
export const BUS_HANDLERS = "beamline.ext.tools.";

const MOMENT_MS = 250;
const SUBJECT = /^nats:(?:\/\/)?([A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*)$/;

export interface OutsidePorts {
  readonly egress: Egress;
  readonly caller: Caller;
  readonly mcp: McpServers;
  readonly maxBytes: number;
}

export function outsideHandlers({ egress, caller, mcp, maxBytes }: OutsidePorts): Outside {
  return {
    async check(address) {
      if (address === "") throw invalidArgument("handler_address", "is missing");
      if (address.startsWith("nats:")) {
        subjectOf(address);
        return;
      }
      if (/^(?:mcp|plugin):/.test(address)) {
        throw invalidArgument("handler_address", "mcp: and plugin: are not for registering");
      }
      try {
        await egress.checkAddress(address);
      } catch (thrown) {
        const error = BeamlineError.from(thrown);
        throw new BeamlineError(
          error.code === "unavailable" ? "invalid_argument" : error.code,
          `handler_address: ${error.message}`,
          { field: "handler_address" },
        );
      }
    },

    async run(registered, input, call) {
      const { definition, handler_address: address, plugin } = registered;
      if (plugin !== undefined) return call.host.plugins.run(plugin, input, call);
      if (address.startsWith("mcp:")) return mcp.call(registered, input, call);
      const request = ExecuteRequest.fromPartial({
        tool_name: definition.name,
        agent_id: call.agent,
        task_id: call.task,
        input_json: Buffer.from(JSON.stringify(input)),
        reason: call.reason,
      });
      let answer: ExecuteResponse;
      try {
        answer = address.startsWith("nats:")
          ? await overBus(caller, subjectOf(address), request, definition, call)
          : await executeAt(await egress.checkAddress(address), request, {
              timeoutMs: definition.timeout_ms,
              signal: call.signal,
              traceparent: call.traceparent,
              tls: address.startsWith("https:"),
              maxBytes,
            });
      } catch (thrown) {
        const error = BeamlineError.from(thrown);
        // The handler's deadline is the tool's own time, which is told in the tool's words: it ends in the same moment, if not just before.
        if (error.code === "deadline_exceeded")
          await call.host.clock.sleep(MOMENT_MS, call.signal).catch(() => undefined);
        call.signal.throwIfAborted();
        throw new ToolFailure(`${definition.name}: the handler at ${address} failed: ${error.message}`);
      }
      if (!answer.success) throw new ToolFailure(answer.error === "" ? `${definition.name} failed` : answer.error);
      return outputOf(definition.name, answer.output_json);
    },
  };
}

async function overBus(
  caller: Caller,
  subject: string,
  request: ExecuteRequest,
  { timeout_ms: timeoutMs }: Registered["definition"],
  call: Call,
): Promise<ExecuteResponse> {
  const headers = {
    [header.tenantId]: call.tenant,
    [header.traceparent]: call.traceparent,
    [header.deadline]: String(call.host.clock.now() + timeoutMs),
  };
  const json = codecOf(ExecuteRequest).toJson(request);
  return codecOf(ExecuteResponse).fromJson(
    await caller.request(subject, json, { timeoutMs, signal: call.signal, headers, worker: "tool handler" }),
  );
}

function subjectOf(address: string): string {
  const subject = SUBJECT.exec(address)?.[1];
  if (subject === undefined || !subject.startsWith(BUS_HANDLERS)) {
    throw invalidArgument("handler_address", `must be a subject below ${BUS_HANDLERS} when it begins with nats:`);
  }
  return subject;
}

function outputOf(name: string, bytes: Uint8Array): Json {
  if (bytes.length === 0) return {};
  let output: unknown;
  try {
    output = JSON.parse(Buffer.from(bytes).toString("utf8"));
  } catch {
    throw new ToolFailure(`${name}: the handler's output is not JSON`);
  }
  return typeof output === "object" && output !== null && !Array.isArray(output)
    ? (output as Json)
    : { result: output };
}
