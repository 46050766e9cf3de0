/** Requests that never become one. */
import { connect, type AddressInfo } from "node:net";
import { setTimeout as pause } from "node:timers/promises";
import { afterEach, expect, test } from "vitest";
import { httpServer } from "./http.ts";

const RECEIVE_MS = 500;
const app = httpServer(RECEIVE_MS);
app.post("/echo", async ({ body }) => body);
// An answer that takes longer than a request may.
app.get("/slow", async () => pause(3 * RECEIVE_MS, { slow: true }));
await app.listen({ host: "127.0.0.1", port: 0 });
const { port } = app.server.address() as AddressInfo;
afterEach(() => app.close());

/** What comes back until the server closes the connection. */
async function said(sent: string): Promise<string> {
  const socket = connect(port, "127.0.0.1");
  socket.write(sent);
  let text = "";
  for await (const chunk of socket) text += String(chunk);
  return text;
}

test("a request that stops in the middle is ended with 408, one that is answered late is not", async () => {
  const slow = fetch(`http://127.0.0.1:${port}/slow`);
  const halves = [
    "POST /echo HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{",
    "POST /echo HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{",
    "POST /echo HTTP/1.1\r\nhost:",
  ];
  for (const answer of await Promise.all(halves.map(said))) {
    expect(answer).toMatch(/^HTTP\/1\.1 408 /);
    expect(answer).toContain('{"error":"validation_error","message":"the request did not arrive in time"}');
  }
  expect(await (await slow).json()).toEqual({ slow: true });
});
