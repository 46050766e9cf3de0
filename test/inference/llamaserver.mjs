#!/usr/bin/env node
// Stands in for llama-server: the same arguments, the same health check, one chat completion. `-c 1` never gets ready, `-c 2` ends at once.
import { createServer } from "node:http";

const given = Object.fromEntries(process.argv.slice(2).map((word, at, all) => [word, all[at + 1]]));
if (given["-c"] === "2") process.exit(3);
createServer((request, response) => {
  if (request.url === "/health") {
    response.statusCode = given["-c"] === "1" ? 503 : 200;
    return response.end("{}");
  }
  response.setHeader("content-type", "application/json");
  const message = { role: "assistant", content: JSON.stringify({ from: given["-m"] }) };
  response.end(
    JSON.stringify({
      id: "1",
      object: "chat.completion",
      created: 1,
      model: "x",
      choices: [{ index: 0, message, finish_reason: "stop" }],
      usage: { prompt_tokens: 1, completion_tokens: 2, total_tokens: 3 },
    }),
  );
}).listen(Number(given["--port"]), given["--host"]);
