/** Tokens of an identity provider at every surface of the edge, with a provider that publishes its keys over HTTP. */
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { status } from "@grpc/grpc-js";
import { exportJWK, generateKeyPair, SignJWT, type CryptoKey } from "jose";
import { afterAll, beforeAll, expect, test } from "vitest";
import { AIRuntimeDefinition } from "../../contracts/gen/aios/runtime.ts";
import { ToolRegistryDefinition } from "../../contracts/gen/aios/tools.ts";
import { grpcClient } from "../kit/grpc.ts";
import { verifies } from "../kit/verifies.ts";
import { startWorld, type World } from "../kit/world.ts";

let world: World;
let provider: Server;
let key: CryptoKey;
let tools: ReturnType<typeof grpcClient<typeof ToolRegistryDefinition>>;

beforeAll(async () => {
  const pair = await generateKeyPair("RS256", { extractable: true });
  key = pair.privateKey;
  const keys = [{ ...(await exportJWK(pair.publicKey)), kid: "k", alg: "RS256" }];
  provider = createServer((_request, response) => response.end(JSON.stringify({ keys })));
  await new Promise<void>((resolve) => provider.listen(0, "127.0.0.1", resolve));
  world = await startWorld({
    workers: ["tools"],
    syncInterval: "10s",
    env: {
      BEAMLINE_JWKS_URL: `http://127.0.0.1:${(provider.address() as AddressInfo).port}/jwks`,
      BEAMLINE_JWT_ISSUER: "https://id.example.org",
      BEAMLINE_JWT_AUDIENCE: "beamline",
      BEAMLINE_JWT_TENANT_CLAIM: "org",
      BEAMLINE_ALLOW_ANONYMOUS: "false",
    },
  });
  tools = grpcClient(ToolRegistryDefinition, world.grpc);
}, 60_000);
afterAll(async () => {
  tools?.[Symbol.dispose]();
  await world?.[Symbol.asyncDispose]();
  provider.closeAllConnections();
  provider.close();
});

function bearer(org: string, audience = "beamline"): Promise<string> {
  const token = new SignJWT({ sub: "ann", org, scope: "*" }).setProtectedHeader({ alg: "RS256", kid: "k" });
  return token.setIssuer("https://id.example.org").setAudience(audience).setExpirationTime("5m").sign(key);
}

const authorization = async (org: string, audience?: string): Promise<string> =>
  `Bearer ${await bearer(org, audience)}`;

verifies("tenant-wall", "a token speaks for the tenant it names and for no other", async () => {
  const [acme, umbra] = [
    { authorization: await authorization("acme") },
    { authorization: await authorization("umbra") },
  ];
  const registered = { tool: { name: "custom.own" }, handler_address: "nats:beamline.ext.tools.own" };
  expect(await tools.call("register", registered, { metadata: acme })).toMatchObject({ accepted: true });
  expect((await tools.call("listTools", { namespace: "custom" }, { metadata: acme })).tools.length).toBe(1);
  expect((await tools.call("listTools", { namespace: "custom" }, { metadata: umbra })).tools.length).toBe(0);
  const elsewhere = { ...umbra, "x-tenant-id": "acme" };
  await expect(tools.call("listTools", {}, { metadata: elsewhere })).rejects.toMatchObject({
    code: status.PERMISSION_DENIED,
  });
});

test("over gRPC, unary and streamed, a bad token is refused in the same words, and so is none", async () => {
  const metadata = { authorization: await authorization("acme", "others") };
  const refused = { code: status.UNAUTHENTICATED, details: expect.stringContaining("not for this service") as string };
  await expect(tools.call("listTools", {}, { metadata })).rejects.toMatchObject(refused);
  using runtime = grpcClient(AIRuntimeDefinition, world.grpc);
  const read = async (given: Readonly<Record<string, string>>): Promise<void> => {
    for await (const _ of runtime.stream("streamInfer", { prompt: "x" }, { metadata: given }));
  };
  await expect(read(metadata)).rejects.toMatchObject(refused);
  // With a good one it is let in, and finds that nobody serves it here.
  await expect(read({ authorization: await authorization("acme") })).rejects.toMatchObject({
    code: status.UNAVAILABLE,
  });
  await expect(tools.call("listTools", {})).rejects.toMatchObject({ code: status.UNAUTHENTICATED });
});

test("over HTTP: MCP and OpenWOP", async () => {
  const initialize = {
    jsonrpc: "2.0",
    id: 1,
    method: "initialize",
    params: { protocolVersion: "2025-06-18", capabilities: {}, clientInfo: { name: "t", version: "1" } },
  };
  const mcp = async (given: string): Promise<number> => {
    const response = await fetch(`http://${world.http}/mcp`, {
      method: "POST",
      headers: {
        authorization: given,
        "x-agent-id": "task-agent",
        "content-type": "application/json",
        accept: "application/json, text/event-stream",
      },
      body: JSON.stringify(initialize),
    });
    await response.text();
    return response.status;
  };
  expect(await mcp(await authorization("acme"))).toBe(200);
  expect(await mcp(await authorization("acme", "others"))).toBe(401);
  const runs = async (given: string): Promise<[number, string]> => {
    const response = await fetch(`http://${world.http}/v1/runs/none`, { headers: { authorization: given } });
    return [response.status, await response.text()];
  };
  const [code, text] = await runs(await authorization("acme", "others"));
  expect(code).toBe(401);
  expect(text).toContain("not for this service");
  expect((await runs(await authorization("acme")))[0]).not.toBe(401);
});
