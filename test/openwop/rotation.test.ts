/** Secrets of interrupt tokens are replaced without a gap: both sign for a while, then the old one is gone (OpenWOP, tokens). */
import { afterAll, beforeAll, expect, test } from "vitest";
import { startHost, type Host } from "./host.ts";
import { event, waiting } from "./provoke.ts";
import { grpcSurface, restSurface, type Surface } from "./surface.ts";

const [OLD, NEW] = ["k1:the-first-secret-0123456789", "k2:the-second-secret-0123456789"];

let host: Host;
let surfaces: readonly Surface[];
beforeAll(async () => {
  host = await startHost({ OPENWOP_TOKEN_SECRETS: OLD });
  surfaces = [restSurface(host), grpcSurface(host)];
}, 60_000);
afterAll(async () => host[Symbol.asyncDispose]());

/** A run that waits for an event, and its token of now. */
async function asking(): Promise<{ runId: string; token: string }> {
  const runId = await waiting(host, "conformance-interrupt-external-event", "waiting-external");
  return { runId, token: await tokenOf(runId) };
}

async function tokenOf(runId: string): Promise<string> {
  return (await host.rest("GET", `/v1/runs/${runId}`)).body.interrupt.interruptToken;
}

const signer = (token: string): unknown =>
  JSON.parse(Buffer.from(token.split(".")[0] ?? "", "base64url").toString("utf8")).kid;

test("before, while both hold, and after", async () => {
  const before = await Promise.all(surfaces.map(() => asking()));
  const kept = await Promise.all(surfaces.map(() => asking()));
  expect(before.map(({ token }) => signer(token))).toEqual(["k1", "k1"]);

  await host.bed.restart({ OPENWOP_TOKEN_SECRETS: `${NEW},${OLD}` });
  for (const [at, on] of surfaces.entries()) {
    const { runId, token = "" } = before[at] ?? {};
    expect((await on.inspectToken(token)).body.kind).toBe("external-event");
    expect((await on.resolveToken(token, event)).ok).toBe(true);
    await host.reaches(runId ?? "", "completed");
    expect(signer((await asking()).token)).toBe("k2");
  }

  await host.bed.restart({ OPENWOP_TOKEN_SECRETS: NEW });
  for (const [at, on] of surfaces.entries()) {
    const { runId = "", token = "" } = kept[at] ?? {};
    expect((await on.inspectToken(token)).body.error).toBe("interrupt_not_found");
    expect((await on.resolveToken(token, event)).body.error).toBe("interrupt_not_found");
    expect((await host.rest("GET", `/v1/runs/${runId}`)).body.status).toBe("waiting-external");
    expect((await on.resolveToken(await tokenOf(runId), event)).ok).toBe(true);
    await host.reaches(runId, "completed");
  }
});
