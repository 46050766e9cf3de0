/** Capabilities over two workers and the bus, as whoever coordinates agents uses them (aiOS orchestrator, 4.6). */
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { Caller } from "../../bus/call.ts";
import { until } from "../../test/kit/until.ts";
import { startTestbed, type Testbed } from "./testbed.ts";
import type { Json } from "./tool.ts";

let bed: Testbed;
let coordinator: Caller;

beforeAll(async () => {
  bed = await startTestbed({ BEAMLINE_TOOLS_NODE: "one" });
  await bed.startWorker({ BEAMLINE_TOOLS_NODE: "two" });
  coordinator = new Caller(await bed.nats.connect("worker-orchestrator", "worker"));
  await writeFile(join(bed.root, "f"), "x");
}, 60_000);
afterAll(async () => {
  coordinator.stop();
  await bed[Symbol.asyncDispose]();
});

const ask = async (what: string, request: Json): Promise<Json> =>
  (await coordinator.request(`beamline.tools.v1.capabilities.${what}`, request, { timeoutMs: 10_000 })) as Json;

/** Eight calls at once, which both workers take part in; how many passed. */
async function passed(agent: string): Promise<number> {
  const calls = Array.from({ length: 8 }, () => bed.run("fs.stat", { path: join(bed.root, "f") }, { agent }));
  return (await Promise.all(calls)).filter(({ success }) => success).length;
}

async function nodes(agent_id: string): Promise<Set<string | undefined>> {
  return new Set((await bed.ledger.query("default", { agent_id, limit: 1_000 })).map(({ node }) => node));
}

test("granted through one worker it counts on the other at once, and so does its end", async () => {
  for (let round = 0; round < 20; round++) {
    expect(await passed("roamer")).toBe(0);
    const asked = { agent_id: "roamer", capabilities: ["fs_read"], reason: `round ${round}`, duration_hours: 1 };
    const { granted, expires_at } = await ask("grant", asked);
    expect(granted).toBe(true);
    const left = Date.parse(String(expires_at)) - Date.now();
    expect(left).toBeGreaterThan(55 * 60_000);
    expect(left).toBeLessThanOrEqual(60 * 60_000);
    expect(await passed("roamer")).toBe(8);
    const taken = round % 2 === 0 ? { capabilities: ["fs_read"] } : { revoke_all: true };
    expect(await ask("revoke", { agent_id: "roamer", ...taken })).toEqual({ revoked: 1 });
  }
  expect(await passed("roamer")).toBe(0);
  expect(await nodes("roamer")).toEqual(new Set(["one", "two"]));
});

test("it expires everywhere, without anybody doing anything", async () => {
  await ask("grant", { agent_id: "guest", capabilities: ["fs_read"], duration_hours: 1.5 / 3_600 });
  expect(await passed("guest")).toBe(8);
  await until(async () => (await passed("guest")) === 0, "the grant to expire");
  expect(await ask("list", { agent_id: "guest" })).toEqual({ grants: [] });
  expect(await ask("check", { agent_id: "guest", capabilities: ["fs_read"] })).toMatchObject({ missing: ["fs_read"] });
  for (let n = 0; n < 5; n++) expect(await passed("guest")).toBe(0);
});

test("a time that is none is a day; what an agent asks for itself has bounds; nothing named takes nothing back", async () => {
  const { expires_at } = await ask("grant", { agent_id: "a", capabilities: ["fs_read"], duration_hours: 0 });
  expect(Date.parse(String(expires_at)) - Date.now()).toBeGreaterThan(23 * 3_600_000);
  for (const capability of ["sec_manage", "sec:*", "*", "firewall.manage", "self_update", "sec_manage:/x/*"]) {
    const asked = { agent_id: "a", capabilities: ["net_read", capability] };
    expect(await ask("grant", { ...asked, own_request: true }), capability).toMatchObject({
      granted: false,
      granted_capabilities: [],
      denial_reason: `an agent cannot ask for what critical tools need: ${capability}`,
    });
  }
  expect(await ask("check", { agent_id: "a", capabilities: ["net_read"] })).toMatchObject({ missing: ["net_read"] });
  expect(await ask("grant", { agent_id: "a", capabilities: ["net_read"], own_request: true })).toMatchObject({
    granted: true,
  });
  expect(await ask("revoke", { agent_id: "a" })).toEqual({ revoked: 0 });
  expect(await ask("revoke", { agent_id: "a", revoke_all: true })).toEqual({ revoked: 2 });
  await expect(ask("grant", { agent_id: "", capabilities: ["fs_read"] })).rejects.toMatchObject({
    code: "invalid_argument",
  });
});

test("sec.grant and sec.revoke undone leave the grants as they were, unless they were changed since", async () => {
  const grants = async (): Promise<Json> => ask("list", { agent_id: "kept" });
  await ask("grant", { agent_id: "kept", capabilities: ["fs_read"], reason: "first", granted_by: "ann" });
  const first = await grants();
  const granted = await bed.run("sec.grant", {
    agent_id: "kept",
    capabilities: ["fs_write", "fs_read"],
    reason: "more",
  });
  expect(await grants()).not.toEqual(first);
  expect(await bed.rpc("rollback", { execution_id: granted.execution_id })).toMatchObject({ success: true });
  expect(await grants()).toEqual(first);
  for (const input of [{ revoke_all: true }, { capabilities: ["fs_read"] }, { capabilities: ["net_read"] }]) {
    const revoked = await bed.run("sec.revoke", { agent_id: "kept", ...input });
    expect(revoked).toMatchObject({ success: true });
    expect(await bed.rpc("rollback", { execution_id: revoked.execution_id })).toMatchObject({ success: true });
    expect(await grants()).toEqual(first);
  }
  expect(await passed("kept")).toBe(8);
  const revoked = await bed.run("sec.revoke", { agent_id: "kept", revoke_all: true });
  await ask("grant", { agent_id: "kept", capabilities: ["hw_read"] });
  const since = await grants();
  expect(await bed.rpc("rollback", { execution_id: revoked.execution_id })).toMatchObject({
    error: expect.stringContaining("have changed since") as string,
  });
  expect(await grants()).toEqual(since);
});

test("an outside publisher may not grant anything", async () => {
  const outside = new Caller(await bed.nats.connect("outside", "publisher"));
  const asked = { agent_id: "thief", capabilities: ["*"] };
  const call = outside.request("beamline.tools.v1.capabilities.grant", asked, { timeoutMs: 1_500 });
  await expect(call).rejects.toThrow();
  expect(await ask("list", { agent_id: "thief" })).toEqual({ grants: [] });
  outside.stop();
});
