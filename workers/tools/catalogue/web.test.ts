/** Answers of the web as large as they may be, and larger. */
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { afterAll, beforeAll, expect, test } from "vitest";
import { startTestbed, type Testbed } from "../testbed.ts";
import { CUT_MARK, fitting } from "./net.ts";

const MIB = 1024 * 1024;
const records = Array.from({ length: 14_000 }, (_, n) => ({ id: n, name: `"record" ${n}`, tags: ["a", "b"] }));
const bodies: Record<string, Buffer> = {
  "/records": Buffer.from(JSON.stringify(records)),
  "/noise": Buffer.alloc(MIB, 1),
  "/invalid": Buffer.alloc(MIB, 0xff),
  "/text": Buffer.alloc(2 * MIB, "text "),
};

let bed: Testbed;
let web: Server;
let base: string;
beforeAll(async () => {
  web = createServer((request, response) => response.end(bodies[request.url ?? ""]));
  await new Promise<void>((resolve) => web.listen(0, "127.0.0.1", resolve));
  const { port } = web.address() as AddressInfo;
  base = `http://127.0.0.1:${port}`;
  bed = await startTestbed({ BEAMLINE_TOOLS_EGRESS_ALLOW: `127.0.0.1:${port}` });
}, 60_000);
afterAll(async () => {
  await bed[Symbol.asyncDispose]();
  web.closeAllConnections();
  web.close();
});

test("web.api_call gives large data whole, and of the raw body what fits beside it", async () => {
  expect(bodies["/records"]?.length).toBeGreaterThan(700_000);
  const { error, output } = await bed.run("web.api_call", { url: `${base}/records` });
  expect(error).toBe("");
  expect(output["data"]).toEqual(records);
  expect(output["raw_body"]).toMatch(/^\[\{"id":0,/);
  expect(String(output["raw_body"]).endsWith(CUT_MARK)).toBe(true);
});

test("a body is cut at 1 MiB, and what is no text before it is too large to be written", async () => {
  for (const path of ["/noise", "/invalid", "/text"])
    for (const tool of ["net.http_get", "web.http_request", "web.api_call"]) {
      const { error, output } = await bed.run(tool, { url: base + path });
      expect(error, `${tool} ${path}`).toBe("");
      const body = String(output[tool === "web.api_call" ? "raw_body" : "body"]);
      expect(body.endsWith(CUT_MARK)).toBe(true);
      if (path === "/text") expect(body.length).toBe(MIB + CUT_MARK.length);
    }
});

test("what fits stays as it is", () => {
  expect(fitting("short", 100)).toBe("short");
  expect(fitting("x".repeat(1_000), 200).length).toBeLessThanOrEqual(200);
  expect(fitting("\u0001".repeat(1_000), 300)).toMatch(/^\u0001+\n\.\.\. \[truncated\]$/);
  expect(fitting("x".repeat(100), 0)).toBe(CUT_MARK);
});
