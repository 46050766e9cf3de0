/** A server that speaks the wire formats of OpenAI and Anthropic, so that their official clients are tested against sockets, not mocks. */
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

export interface Seen {
  readonly path: string;
  readonly headers: IncomingMessage["headers"];
  readonly body: Record<string, unknown>;
}

export interface Vendors extends AsyncDisposable {
  readonly url: string;
  readonly seen: Seen[];
  /** Streams that were cut off by their reader. */
  readonly cut: number;
  /** Lets what is held be answered. */
  release(): void;
}

type Body = Record<string, unknown>;

/**
 * What the last user turn says steers the answer: `status 503` answers that status, `hang` never answers, `held` answers when released, `drop` breaks the connection, `odd`
 * counts tokens in odd ways.
 */
export async function startVendors(): Promise<Vendors> {
  const seen: Seen[] = [];
  let cut = 0;
  const released = Promise.withResolvers<void>();
  const server = createServer((request, response) => {
    void (async () => {
      const parts: Uint8Array[] = [];
      for await (const part of request) parts.push(part as Uint8Array);
      const body = JSON.parse(Buffer.concat(parts).toString("utf8") || "{}") as Body;
      seen.push({ path: request.url ?? "", headers: request.headers, body });
      const said = lastSaid(body);
      const [, status] = /^status (\d+)/.exec(said) ?? [];
      response.on("close", () => response.writableEnded || cut++);
      if (said.startsWith("hang")) return;
      if (said.startsWith("drop")) return void request.socket.destroy();
      if (said.startsWith("held")) await released.promise;
      if (status !== undefined) return refuse(response, Number(status), request.url ?? "");
      if (request.url?.endsWith("/embeddings") === true) return embed(response, body);
      if (request.url?.endsWith("/messages") === true)
        return body["stream"] === true ? claudeStream(response, said) : claude(response, said);
      if (request.url?.endsWith("/chat/completions") === true)
        return body["stream"] === true ? openAiStream(response, body, said) : openAi(response, body, said);
      refuse(response, 404, "");
    })();
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    seen,
    get cut() {
      return cut;
    },
    release: released.resolve,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
}

function lastSaid(body: Body): string {
  const messages = Array.isArray(body["messages"]) ? (body["messages"] as { role: string; content: string }[]) : [];
  return messages.findLast(({ role }) => role === "user")?.content ?? "";
}

function json(response: ServerResponse, body: unknown, status = 200): void {
  response.writeHead(status, { "content-type": "application/json" });
  response.end(JSON.stringify(body));
}

function refuse(response: ServerResponse, status: number, path: string): void {
  const message = status === 401 ? "Incorrect API key provided: sk-test-secret-0123456789" : `no luck: ${status}`;
  json(
    response,
    path.endsWith("/messages")
      ? { type: "error", error: { type: "api_error", message } }
      : { error: { message, type: "server_error" } },
    status,
  );
}

function embed(response: ServerResponse, body: Body): void {
  const inputs = body["input"] as string[];
  const data = inputs.map((text, index) => ({ object: "embedding", index, embedding: [text.length, 0.5] }));
  json(response, {
    object: "list",
    data,
    model: body["model"],
    usage: { prompt_tokens: 4 * inputs.length, total_tokens: 4 * inputs.length },
  });
}

function openAi(response: ServerResponse, body: Body, said: string): void {
  json(response, {
    id: "c1",
    object: "chat.completion",
    created: 1,
    model: body["model"],
    choices: [{ index: 0, message: { role: "assistant", content: `echo: ${said}` }, finish_reason: "stop" }],
    usage: said.startsWith("odd")
      ? { prompt_tokens: "12", completion_tokens: 1.5, total_tokens: -3 }
      : { prompt_tokens: 1_000, completion_tokens: 500, total_tokens: 1_500 },
  });
}

function openAiStream(response: ServerResponse, body: Body, said: string): void {
  response.writeHead(200, { "content-type": "text/event-stream" });
  const chunk = (choices: unknown[], usage: unknown = null): void =>
    void response.write(
      `data: ${JSON.stringify({ id: "c1", object: "chat.completion.chunk", created: 1, model: body["model"], choices, usage })}\n\n`,
    );
  for (const content of ["echo: ", said]) chunk([{ index: 0, delta: { content }, finish_reason: null }]);
  // Half a surrogate pair per chunk, as a careless tokenizer sends it.
  for (const content of ["\uD83D", "\uDE00"]) chunk([{ index: 0, delta: { content }, finish_reason: null }]);
  if (said.startsWith("endless")) return;
  chunk([{ index: 0, delta: {}, finish_reason: "stop" }]);
  chunk([], { prompt_tokens: 1_000, completion_tokens: 500, total_tokens: 1_500 });
  response.end("data: [DONE]\n\n");
}

const claudeUsage = {
  input_tokens: 900,
  cache_read_input_tokens: 100,
  cache_creation_input_tokens: 0,
  output_tokens: 1_000,
};

function claude(response: ServerResponse, said: string): void {
  json(response, {
    id: "m1",
    type: "message",
    role: "assistant",
    model: "claude-sonnet-4-20250514",
    content: [{ type: "text", text: `claude: ${said}` }],
    stop_reason: "end_turn",
    stop_sequence: null,
    usage: said.startsWith("odd") ? { output_tokens: "7" } : claudeUsage,
  });
}

function claudeStream(response: ServerResponse, said: string): void {
  response.writeHead(200, { "content-type": "text/event-stream" });
  const event = (type: string, data: object): void =>
    void response.write(`event: ${type}\ndata: ${JSON.stringify({ type, ...data })}\n\n`);
  event("message_start", {
    message: {
      id: "m1",
      type: "message",
      role: "assistant",
      model: "claude-sonnet-4-20250514",
      content: [],
      stop_reason: null,
      stop_sequence: null,
      usage: { ...claudeUsage, output_tokens: 1 },
    },
  });
  event("content_block_start", { index: 0, content_block: { type: "text", text: "" } });
  for (const text of ["claude: ", said])
    event("content_block_delta", { index: 0, delta: { type: "text_delta", text } });
  event("content_block_stop", { index: 0 });
  event("message_delta", { delta: { stop_reason: "end_turn", stop_sequence: null }, usage: { output_tokens: 1_000 } });
  event("message_stop", {});
  response.end();
}
