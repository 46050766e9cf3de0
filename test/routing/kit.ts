/** What the tests of routing share: policies and requests as administrators and gateways send them. */
import { isError } from "../../bus/call.ts";
import type { Bus } from "../../bus/connect.ts";
import { ADMIN_KEY, type World } from "../kit/world.ts";

export type Json = Record<string, unknown>;

export const DECIDE = "beamline.router.v1.decide";

/** Stores a policy document. */
export async function putPolicy(world: World, tenant: string, id: string, document: object): Promise<void> {
  const policy = { version: "1.0", ...document, policy_id: id };
  await admin(world, "upsert_policy", { tenant_id: tenant, policy });
}

/** An admin call with the key. Throws what is answered. */
export async function admin(world: World, name: string, request: object): Promise<Json> {
  const headers = { "x-api-key": ADMIN_KEY };
  return (await world.caller.request(`beamline.router.v1.admin.${name}`, request, {
    timeoutMs: 5_000,
    headers,
  })) as Json;
}

let ids = 0;
/** A request of the seed form with a message id of its own. */
export function request(tenant: string, policy_id: string, more: Json = {}): Json & { message: Json } {
  const message = { message_id: `m-${++ids}`, tenant_id: tenant, message_type: "chat", payload: '{"text":"hello"}' };
  return { policy_id, ...more, message: { ...message, ...(more["message"] as Json | undefined) } };
}

/** The reply to a request, a refusal included. */
export async function ask(world: World, body: unknown, headers: Record<string, string> = {}): Promise<Json> {
  const { reply } = await exchange(world, body, headers);
  return reply;
}

export async function exchange(
  world: World,
  body: unknown,
  headers: Record<string, string> = {},
  subject = DECIDE,
): Promise<{ reply: Json; error: boolean; headers: Readonly<Record<string, string>> }> {
  const text = typeof body === "string" ? body : JSON.stringify(body);
  const reply = await world.caller.call(subject, text, { timeoutMs: 10_000, headers });
  return { reply: JSON.parse(reply.text) as Json, error: isError(reply.headers), headers: reply.headers };
}

/** Serves an extension as an outside program does; gives what it was asked. */
export function serveExtension(bus: Bus, subject: string, answer: (asked: Json) => Json | undefined): Json[] {
  const asked: Json[] = [];
  bus.nc.subscribe(subject, {
    callback(_error, message) {
      const body = JSON.parse(new TextDecoder().decode(message.data)) as Json;
      asked.push(body);
      const reply = answer(body);
      if (reply !== undefined) message.respond(JSON.stringify(reply));
    },
  });
  return asked;
}

export interface Answer {
  readonly status: number;
  readonly body: Json;
  readonly headers: Headers;
}

/** A call of the REST gateway, below `/api/v1/`. */
export async function callRest(
  to: World,
  method: string,
  path: string,
  body?: unknown,
  headers: Record<string, string> = {},
): Promise<Answer> {
  const response = await fetch(`http://${to.http}/api/v1/${path}`, {
    method,
    headers: { "content-type": "application/json", ...headers },
    ...(body !== undefined && { body: typeof body === "string" ? body : JSON.stringify(body) }),
  });
  return { status: response.status, body: (await response.json()) as Json, headers: response.headers };
}
