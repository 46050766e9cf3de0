/**
 * MCP servers as tools: what a server lists becomes `mcp_<server>.<tool>`. Servers that are programs of this host (stdio) are the operator's to
 * name, in a file; servers over HTTP (streamable) can also be imported while running, and are reached by the guarded way out.
 */
import { readFile } from "node:fs/promises";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";
import { StreamableHTTPClientTransport, StreamableHTTPError } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import type { Transport } from "@modelcontextprotocol/sdk/shared/transport.js";
import { ErrorCode, McpError } from "@modelcontextprotocol/sdk/types.js";
import { BeamlineError, invalidArgument } from "../../../contracts/errors.ts";
import { ToolDefinition } from "../../../contracts/gen/aios/tools.ts";
import type { Egress } from "../../../runtime/egress.ts";
import { canonical } from "../canonical.ts";
import { ToolFailure } from "../failure.ts";
import type { Registered, Registry } from "../registry.ts";
import type { Programs } from "../sandbox/run.ts";
import type { Call, Json } from "../tool.ts";

/** One server of the operator's file. */
export type McpServer =
  | {
      readonly command: string;
      readonly args?: readonly string[];
      readonly env?: Readonly<Record<string, string>>;
      readonly tenant?: string;
      readonly capabilities?: readonly string[];
    }
  | {
      readonly url: string;
      readonly headers?: Readonly<Record<string, string>>;
      readonly tenant?: string;
      readonly capabilities?: readonly string[];
    };

export interface McpPorts {
  readonly egress: Egress;
  readonly programs: Programs;
  /** Servers by name, as the operator's file has them. */
  readonly servers: Readonly<Record<string, McpServer>>;
  readonly version: string;
}

const NAME = /^[a-z0-9][a-z0-9_-]{0,40}$/;
const LIST_MS = 15_000;
const CALL_MS = 60_000;
/** Tools taken from one server. */
const MAX_IMPORTED = 500;
const MAX_BODY = 16 * 1024 * 1024;

/** Whether a server no longer knows our session: it was started anew. */
function isForgotten(thrown: unknown): boolean {
  return thrown instanceof StreamableHTTPError && thrown.code === 404;
}

const LOST: ReadonlySet<number> = new Set([ErrorCode.ConnectionClosed, ErrorCode.RequestTimeout]);

/** Whether a connection is of no use any more. A server that refuses a call answers it, and others may be under way on the same connection. */
function isBroken(thrown: unknown): boolean {
  return !(thrown instanceof McpError) || LOST.has(thrown.code);
}

/** What came of an import. */
export interface Imported {
  /** Names of the tools, in order. */
  readonly tools: string[];
  /** What could not be a tool here, and why. */
  readonly skipped: { readonly tool: string; readonly error: string }[];
}

/** Connections are shared by whoever names the same server with the same headers: they may be somebody's credentials. */
function keyFor(name: string, server: McpServer): string {
  return "url" in server ? canonical([name, server.url, server.headers]) : name;
}

export class McpServers {
  readonly #ports: McpPorts;
  readonly #open = new Map<string, Promise<Client>>();

  constructor(ports: McpPorts) {
    this.#ports = ports;
  }

  /**
   * Imports every tool of a server. A tool needs the capabilities named for the server, none by default. One that cannot be a tool here is
   * skipped. Throws `invalid_argument`, `unavailable`, `permission_denied`.
   */
  async import(registry: Registry, tenant: string, name: string, server: McpServer, by: string): Promise<Imported> {
    if (!NAME.test(name)) throw invalidArgument("name", "must be lower-case letters, digits, dash and underscore");
    const tools: string[] = [];
    const skipped: { tool: string; error: string }[] = [];
    for (let cursor: string | undefined; ;) {
      const from = cursor === undefined ? {} : { cursor };
      const page = await this.#ask(name, server, (client) => client.listTools(from, { timeout: LIST_MS }));
      for (const tool of page.tools) {
        const definition = ToolDefinition.fromPartial({
          name: `mcp_${name}.${tool.name.replaceAll(/[^A-Za-z0-9_.-]/g, "_")}`,
          description: (tool.description ?? tool.title ?? tool.name).slice(0, 8_000),
          input_schema: Buffer.from(JSON.stringify(tool.inputSchema)),
          required_capabilities: [...(server.capabilities ?? [])],
          idempotent: tool.annotations?.idempotentHint ?? tool.annotations?.readOnlyHint ?? false,
          risk_level: tool.annotations?.destructiveHint === true ? "high" : "medium",
          timeout_ms: CALL_MS,
        });
        const http =
          "url" in server
            ? { mcp: { url: server.url, ...(server.headers !== undefined && { headers: server.headers }) } }
            : {};
        const more = { handler_address: `mcp:${name}/${tool.name}`, registered_by: by, ...http };
        try {
          await registry.adopt(tenant, definition, more);
          tools.push(definition.name);
        } catch (thrown) {
          if (!(thrown instanceof BeamlineError) || thrown.code !== "invalid_argument") throw thrown;
          skipped.push({ tool: tool.name.slice(0, 200), error: thrown.message });
        }
        if (tools.length + skipped.length >= MAX_IMPORTED) return { tools: tools.sort(), skipped };
      }
      cursor = page.tools.length === 0 ? undefined : page.nextCursor;
      if (cursor === undefined) return { tools: tools.sort(), skipped };
    }
  }

  /** Imports every server of the operator's file; one that cannot be reached is told of, the others go on. */
  async importAll(registry: Registry, onProblem: (name: string, error: unknown) => void): Promise<void> {
    await Promise.all(
      Object.entries(this.#ports.servers).map(async ([name, server]) => {
        try {
          const { skipped } = await this.import(registry, server.tenant ?? "default", name, server, "operator");
          for (const { tool, error } of skipped) onProblem(`${name}/${tool}`, error);
        } catch (thrown) {
          onProblem(name, BeamlineError.from(thrown));
        }
      }),
    );
  }

  /** Calls a tool that was imported. Throws `ToolFailure` with what the server said. */
  async call({ handler_address, mcp }: Registered, input: Json, call: Call): Promise<Json> {
    const [, name = "", tool = ""] = /^mcp:([^/]+)\/(.+)$/.exec(handler_address) ?? [];
    const server = mcp ?? this.#ports.servers[name];
    if (server === undefined) throw new ToolFailure(`the MCP server ${name} is not configured on this host`);
    let result;
    try {
      const options = { signal: call.signal, timeout: CALL_MS };
      const asked = { name: tool, arguments: input };
      result = await this.#ask(name, server, (client) => client.callTool(asked, undefined, options), call.signal);
    } catch (thrown) {
      call.signal.throwIfAborted();
      throw new ToolFailure(
        `the MCP server ${name} failed: ${thrown instanceof Error ? thrown.message : String(thrown)}`,
      );
    }
    const parts = Array.isArray(result.content) ? (result.content as { type: string; text?: string }[]) : [];
    const text = parts.flatMap((part) => (part.type === "text" ? [part.text ?? ""] : [])).join("\n");
    if (result.isError === true) throw new ToolFailure(text === "" ? `${tool} failed` : text);
    return (result.structuredContent as Json | undefined) ?? { text, content: parts };
  }

  async close(): Promise<void> {
    const clients = await Promise.allSettled(this.#open.values());
    this.#open.clear();
    for (const opened of clients) if (opened.status === "fulfilled") await opened.value.close();
  }

  /**
   * Asks a server. One that has forgotten the session has done nothing: the protocol asks for a new session and the same again. A connection that
   * broke is let go of; the next one to ask opens another.
   */
  async #ask<T>(
    name: string,
    server: McpServer,
    run: (client: Client) => Promise<T>,
    signal?: AbortSignal,
  ): Promise<T> {
    for (let again = false; ; again = true) {
      const opening = this.#client(name, server);
      try {
        return await run(await opening);
      } catch (thrown) {
        if (signal?.aborted === true) throw thrown;
        if (isBroken(thrown)) {
          this.#forget(keyFor(name, server), opening);
          await opening.then((client) => client.close()).catch(() => undefined);
        }
        if (again || !isForgotten(thrown)) throw thrown;
      }
    }
  }

  /** The connection to a server, made once and again when it broke. */
  #client(name: string, server: McpServer): Promise<Client> {
    const key = keyFor(name, server);
    const open = this.#open.get(key);
    if (open !== undefined) return open;
    const opening = this.#connect(name, server);
    this.#open.set(key, opening);
    const forget = (): void => this.#forget(key, opening);
    opening.then((client) => (client.onclose = forget), forget);
    return opening;
  }

  /** Not the one that has taken its place. */
  #forget(key: string, opening: Promise<Client>): void {
    if (this.#open.get(key) === opening) this.#open.delete(key);
  }

  async #connect(name: string, server: McpServer): Promise<Client> {
    const client = new Client({ name: "beamline", version: this.#ports.version });
    try {
      await client.connect(await this.#transport(server), { timeout: LIST_MS });
    } catch (thrown) {
      const cause = thrown instanceof Error && thrown.cause instanceof BeamlineError ? thrown.cause : thrown;
      if (cause instanceof BeamlineError) throw cause;
      throw new BeamlineError(
        "unavailable",
        `the MCP server ${name} cannot be reached: ${thrown instanceof Error ? thrown.message : String(thrown)}`,
        { cause },
      );
    }
    return client;
  }

  async #transport(server: McpServer): Promise<Transport> {
    if ("command" in server) {
      const command = await this.#ports.programs.find(server.command);
      if (command === undefined)
        throw new BeamlineError("unavailable", `the program ${server.command} of an MCP server is not on this host`);
      const env = this.#ports.programs.environment(server.env ?? {});
      return new StdioClientTransport({ command, args: [...(server.args ?? [])], env, stderr: "ignore" });
    }
    const url = URL.parse(server.url);
    if (url === null) throw invalidArgument("url", "is not a URL");
    const requestInit = server.headers === undefined ? {} : { headers: { ...server.headers } };
    // The types of the SDK's own transport do not agree under exactOptionalPropertyTypes.
    return new StreamableHTTPClientTransport(url, {
      fetch: guardedFetch(this.#ports.egress),
      requestInit,
    });
  }
}

/** Fetch as the SDK wants it, by the guarded way out. */
function guardedFetch(egress: Egress): (url: string | URL, init?: RequestInit) => Promise<Response> {
  return async (url, init = {}) => {
    // The SDK only ever sends text.
    const body = typeof init.body === "string" ? { body: init.body } : {};
    const headers = Object.fromEntries(new Headers(init.headers).entries());
    const answer = await egress.stream(String(url), {
      method: init.method ?? "GET",
      headers,
      ...body,
      signal: init.signal ?? undefined,
      timeoutMs: 10 * CALL_MS,
      maxBytes: MAX_BODY,
    });
    const empty = [101, 204, 205, 304].includes(answer.status);
    return new Response(empty ? null : ReadableStream.from(answer.chunks), {
      status: answer.status,
      headers: answer.headers,
    });
  };
}

/** Servers of the operator's file, in the form other programs use: `{"mcpServers": {name: …}}`. Throws naming the file when it is no such file. */
export async function readMcpFile(file: string | undefined): Promise<Readonly<Record<string, McpServer>>> {
  if (file === undefined) return {};
  try {
    const { mcpServers = {} } = JSON.parse(await readFile(file, "utf8")) as { mcpServers?: Record<string, McpServer> };
    return mcpServers;
  } catch (thrown) {
    throw new Error(
      `the MCP servers of ${file} cannot be read: ${thrown instanceof Error ? thrown.message : String(thrown)}`,
      { cause: thrown },
    );
  }
}
