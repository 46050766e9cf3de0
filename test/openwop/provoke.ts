/** For tests of refusals: runs in a state, tokens as somebody signed them, workflows made for the occasion. */
import { expect } from "vitest";
import { Tokens } from "../../workers/runs/tokens.ts";
import type { Host } from "./host.ts";
import type { Reply } from "./surface.ts";

const [CURRENT, RETIRED] = ["current-secret-0123456789", "retired-secret-0123456789"];
/** The setting of a host that signs with k2 and still takes what k1 signed. */
export const TOKEN_SECRETS = `k2:${CURRENT},k1:${RETIRED}`;
export const retired = new Tokens([{ id: "k1", secret: RETIRED }]);
export const stranger = new Tokens([{ id: "k9", secret: "a-secret-of-somebody-else" }]);

/** What the fixture of external events waits for. */
export const event = { orderId: "fixture-order-1", status: "completed" };
export const soon = (): number => Date.now() + 60_000;

/** An envelope without what differs from call to call: ids and times. */
export function bare(body: unknown): unknown {
  const text = JSON.stringify(body)
    .replaceAll(/[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}/g, "<id>")
    .replaceAll(/\d{4}-\d\d-\d\dT[\d:.]+Z/g, "<time>");
  return JSON.parse(text);
}

export async function waiting(host: Host, workflowId: string, status: string): Promise<string> {
  const runId = await host.start(workflowId);
  await host.reaches(runId, status);
  return runId;
}

/** A token for a question that is open now. */
export async function tokenFor(
  host: Host,
  tokens: Tokens,
  expiresAt: number,
  intent: "resolve" | "inspect" = "resolve",
): Promise<string> {
  const runId = await waiting(host, "conformance-interrupt-external-event", "waiting-external");
  const { nodeId, interruptId } = (await host.rest("GET", `/v1/runs/${runId}`)).body.interrupt;
  return tokens.sign({ tenant: "acme", runId, nodeId, interruptId, expiresAt, intent });
}

export const node = (id: string, typeId: string, config: object = {}): object => ({
  id,
  typeId,
  name: id,
  position: { x: 0, y: 0 },
  config,
  inputs: {},
});

export const edge = (sourceNodeId: string, targetNodeId: string): object => ({
  id: `${sourceNodeId}-${targetNodeId}`,
  sourceNodeId,
  targetNodeId,
});

export function workflow(id: string, nodes: readonly object[], more: object = {}): object {
  const base = { name: id, version: "1", edges: [], triggers: [], variables: [], metadata: {}, settings: {} };
  return { id, nodes, ...base, ...more };
}

/** Registers a workflow over REST, well or ill. */
export async function tryApply(host: Host, id: string, nodes: readonly object[], more: object = {}): Promise<Reply> {
  const { status, body } = await host.rest("PUT", `/v1/workflows/${id}`, workflow(id, nodes, more));
  return { ok: status < 300, status, body };
}

export async function apply(host: Host, id: string, nodes: readonly object[], more: object = {}): Promise<void> {
  const { ok, body } = await tryApply(host, id, nodes, more);
  expect(ok, JSON.stringify(body)).toBe(true);
}
