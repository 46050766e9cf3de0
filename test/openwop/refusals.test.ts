/** What cannot be read is refused, alike over both surfaces, and changes nothing: tokens, bodies, cursors, graphs. */
import type { Metadata } from "@grpc/grpc-js";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { verifies } from "../kit/verifies.ts";
import { bearer, KEYS, startHost, type Host } from "./host.ts";
import {
  apply,
  bare,
  edge,
  event,
  node,
  retired,
  soon,
  tokenFor,
  TOKEN_SECRETS,
  tryApply,
  waiting,
} from "./provoke.ts";
import { envelopeOf, grpcSurface, restSurface, type Surface } from "./surface.ts";

let host: Host;
let surfaces: readonly Surface[];
beforeAll(async () => {
  host = await startHost({ OPENWOP_TOKEN_SECRETS: TOKEN_SECRETS });
  surfaces = [restSurface(host), grpcSurface(host)];
}, 60_000);
afterAll(async () => host[Symbol.asyncDispose]());

/** How a stream is refused. */
async function refusalOf(stream: AsyncIterable<unknown>): Promise<{ code: number; body: unknown }> {
  try {
    for await (const _ of stream) continue;
  } catch (thrown) {
    const { code, metadata } = thrown as { code: number; metadata: Metadata };
    return { code, body: envelopeOf(metadata) };
  }
  throw new Error("the stream was not refused");
}

describe("tokens", () => {
  verifies("clear-failure", "malformed tokens are refused alike over both surfaces, and change nothing", async () => {
    const good = await tokenFor(host, retired, soon());
    const [payload = "", mac = ""] = good.split(".");
    const bad = [
      "not-a-token",
      "a.b.c",
      ".",
      `${payload}.`,
      `.${mac}`,
      `${payload}.${mac}.${mac}`,
      `${payload}.${mac.slice(1)}`,
      `${payload.slice(0, -4)}.${mac}`,
      `${Buffer.from("[]").toString("base64url")}.${mac}`,
      `${Buffer.from('{"runId":1}').toString("base64url")}.${mac}`,
      `${"x".repeat(5_000)}.${mac}`,
    ];
    for (const token of bad) {
      for (const ask of [(on: Surface) => on.inspectToken(token), (on: Surface) => on.resolveToken(token, event)]) {
        const [rest, rpc] = await Promise.all(surfaces.map(ask));
        expect([400, 404], token).toContain(rest?.status);
        expect(rpc?.status).toBe(rest?.status === 400 ? 3 : 5);
        expect(bare(rpc?.body)).toEqual(bare(rest?.body));
      }
    }
    for (const on of surfaces) expect((await on.inspectToken(good)).body.kind).toBe("external-event");
  });

  test("what a token says: whom it is for, how long, and signed with which secret", async () => {
    await apply(host, "short", [node("gate", "core.approvalGate", { title: "?", timeoutMs: 60_000 })]);
    const said = async (runId: string, key: string): Promise<Record<string, unknown>> => {
      const { interrupt } = (await host.rest("GET", `/v1/runs/${runId}`, undefined, {}, key)).body;
      const [payload = ""] = interrupt.interruptToken.split(".");
      expect(interrupt.callbackUrl).toBe(`${host.base}/v1/interrupts/${interrupt.interruptToken}`);
      return JSON.parse(Buffer.from(payload, "base64url").toString("utf8"));
    };
    const [long, short] = [
      await waiting(host, "conformance-approval", "waiting-approval"),
      await waiting(host, "short", "waiting-approval"),
    ];
    const half = await said(long, KEYS.full);
    expect(half).toMatchObject({
      runId: long,
      nodeId: "gate",
      interruptId: expect.any(String),
      intent: "resolve",
      kid: "k2",
    });
    expect(Math.abs(Number(half["expiresAt"]) - Date.now() - 30 * 60_000)).toBeLessThan(20_000);
    expect(Number((await said(short, KEYS.full))["expiresAt"])).toBeLessThanOrEqual(Date.now() + 60_000);
    expect(await said(long, KEYS.low)).toMatchObject({ intent: "inspect" });
  });

  test("a question that is closed takes no token any more", async () => {
    for (const on of surfaces) {
      const runId = await waiting(host, "conformance-interrupt-external-event", "waiting-external");
      const { interruptToken } = (await on.get(runId)).body.interrupt;
      await on.cancel(runId);
      const replies = [await on.inspectToken(interruptToken), await on.resolveToken(interruptToken, event)];
      expect(replies.map(({ body }) => body.error)).toEqual([
        "interrupt_already_resolved",
        "interrupt_already_resolved",
      ]);
    }
  });
});

describe("what cannot be read", () => {
  test("oversized bodies, bytes that are no message, cursors that are none", async () => {
    const { maxRequestBodyBytes } = (await host.rest("GET", "/.well-known/openwop")).body.limits;
    const sized = (bytes: number): object => ({ workflowId: "conformance-noop", inputs: { big: "x".repeat(bytes) } });
    for (const on of surfaces) {
      expect((await on.create(sized(maxRequestBodyBytes - 100))).ok).toBe(true);
      const refused = await on.create(sized(maxRequestBodyBytes));
      expect([refused.status, refused.body.error]).toEqual([on.name === "rest" ? 413 : 3, "validation_error"]);
      expect(refused.body.message).toMatch(/^the request body is/);
    }
    const beyond = await host.rest("POST", "/v1/runs", sized(20_000_000));
    expect([beyond.status, beyond.body.error]).toEqual([413, "validation_error"]);
    const auth = { metadata: { authorization: `Bearer ${KEYS.full}` } };
    await expect(host.grpc.raw("createRun", Buffer.alloc(17 * 1024 * 1024), auth)).rejects.toMatchObject({ code: 8 });
    await expect(host.grpc.raw("createRun", Buffer.from([0x0a, 0xff, 0xff]), auth)).rejects.toMatchObject({ code: 3 });
    const runId = await host.start("conformance-noop");
    const [restSays, rpcSays] = await Promise.all([
      host.rest("GET", `/v1/runs/${runId}/events?bufferMs=99999`),
      refusalOf(host.grpc.stream("streamRunEvents", { run_id: runId, last_sequence: -1n, buffer_ms: 99_999 }, auth)),
    ]);
    expect([restSays.status, rpcSays.code, rpcSays.body]).toEqual([400, 3, restSays.body]);
    for (const cursor of ["abc", "1.5", "99999999999999999999", "0x1"]) {
      const paths = [`events?lastEventId=${cursor}`, `events/poll?lastSequence=${cursor}&timeout=1`];
      for (const path of paths) {
        const { status, body } = await host.rest("GET", `/v1/runs/${runId}/${path}`);
        expect([cursor, status, body.error]).toEqual([cursor, 400, "validation_error"]);
      }
    }
  });

  test("cursors before the beginning and beyond the end", async () => {
    const runId = await waiting(host, "conformance-noop", "completed");
    const all = await host.events(runId);
    for (const [cursor, count] of [
      [-1, all.length],
      [-7, all.length],
      [0, all.length - 1],
      [9_999, 0],
    ] as const) {
      const { body } = await host.rest("GET", `/v1/runs/${runId}/events/poll?lastSequence=${cursor}&timeout=1`);
      expect([cursor, body.events.length, body.isComplete]).toEqual([cursor, count, true]);
      const asked = { run_id: runId, last_sequence: BigInt(cursor), stream_modes: ["debug"] };
      const seen = await Array.fromAsync(host.grpc.stream("streamRunEvents", asked, bearer()));
      expect([cursor, seen.length]).toEqual([cursor, count]);
    }
  });

  test("cyclic graphs, edges to nowhere, doubled ids are refused with their path", async () => {
    const [a, b] = [node("a", "core.noop"), node("b", "core.noop")];
    const cases: readonly (readonly [readonly object[], readonly object[], RegExp])[] = [
      [[a, b], [edge("a", "b"), edge("b", "a")], /^edges\[1\] closes a cycle/],
      [[a], [edge("a", "a")], /^edges\[0\] closes a cycle/],
      [[a], [edge("a", "nowhere")], /^edges\[0\]\.targetNodeId/],
      [[a, a], [], /^nodes\[1\]\.id/],
    ];
    for (const [nodes, edges, message] of cases) {
      const { status, body } = await tryApply(host, "wrong", nodes, { edges });
      expect([status, body.error]).toEqual([400, "validation_error"]);
      expect(body.message).toMatch(message);
    }
    expect((await host.rest("GET", "/v1/workflows/wrong")).status).toBe(404);
  });
});
