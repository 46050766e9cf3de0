/** The two event streams of the gateway: results of one assignment or request, and messages that passed through this edge. */
import type { FastifyReply, FastifyRequest } from "fastify";
import { BeamlineError } from "../../contracts/errors.ts";
import { resultJson } from "../../contracts/execution/result.ts";
import type { JsonObject } from "../../contracts/codec.ts";
import { badRequest, type Gateway } from "./gateway.ts";
import type { ResultHub, SeenResult } from "./results.ts";
import { beat, openChannel, type Channel } from "./sse.ts";

type Query = Readonly<Record<string, string | undefined>>;

const HEARTBEAT_MS = 15_000;
const LEAST_HEARTBEAT_MS = 200;

/** `GET /api/v1/results/stream`: results that match, past ones of the last minutes first. */
export function streamResults(gateway: Gateway, hub: ResultHub, request: FastifyRequest, reply: FastifyReply): void {
  const query = request.query as Query;
  const { assignment_id, request_id, provider_id, provider_exclude } = query;
  if (!assignment_id && !request_id) throw badRequest("assignment_id", "or request_id is required");
  const tenant = tenantOf(gateway, request, query);
  const heartbeatMs = Math.max(LEAST_HEARTBEAT_MS, milliseconds(query, "heartbeat_ms") ?? HEARTBEAT_MS);
  const closeAfterMs = milliseconds(query, "close_after_ms");
  const after = Number(request.headers["last-event-id"] ?? 0) || 0;
  const matches = ({ seq, result }: SeenResult): boolean =>
    seq > after &&
    (!assignment_id || result.assignment_id === assignment_id) &&
    (!request_id || result.request_id === request_id) &&
    (tenant === "" || result.tenant_id === tenant) &&
    (!provider_id || result.provider_id === provider_id) &&
    (!provider_exclude || result.provider_id !== provider_exclude);
  const ends: (() => void)[] = [];
  const channel = openChannel(request, reply, () => {
    for (const end of ends) end();
  });
  ends.push(beat(channel, heartbeatMs, gateway.deps.now));
  if (closeAfterMs !== undefined) {
    const timer = setTimeout(() => channel.close(), closeAfterMs);
    ends.push(() => clearTimeout(timer));
  }
  ends.push(
    hub.follow((seen) => {
      if (matches(seen)) channel.send(resultJson(seen.result), { id: seen.seq });
    }),
  );
}

export type MessageEvent = "message_created" | "message_updated" | "message_deleted";

/** Listeners to the messages of a tenant. Messages are not kept: who was not listening at this edge has missed them. */
export class MessageFeed {
  readonly #channels = new Map<string, Set<Channel>>();

  tell(tenant: string, event: MessageEvent, message: JsonObject): void {
    for (const channel of this.#channels.get(tenant) ?? []) channel.send(message, { name: event });
  }

  /** `GET /api/v1/messages/stream?tenant_id=`. */
  stream(gateway: Gateway, request: FastifyRequest, reply: FastifyReply): void {
    const tenant = tenantOf(gateway, request, request.query as Query);
    if (tenant === "") throw badRequest("tenant_id", "is required");
    const channel = openChannel(request, reply, () => {
      stop();
      const channels = this.#channels.get(tenant);
      channels?.delete(channel);
      if (channels?.size === 0) this.#channels.delete(tenant);
    });
    const stop = beat(channel, HEARTBEAT_MS, gateway.deps.now);
    let channels = this.#channels.get(tenant);
    if (channels === undefined) this.#channels.set(tenant, (channels = new Set()));
    channels.add(channel);
  }
}

/** The caller's tenant; one bound to a tenant cannot name another. Empty when a caller bound to none names none. */
function tenantOf(gateway: Gateway, request: FastifyRequest, { tenant_id }: Query): string {
  const { principal, tenant } = gateway.visitOf(request);
  if (tenant !== "" && tenant_id && tenant_id !== tenant)
    throw new BeamlineError("denied", "tenant_id is not the caller's", { field: "tenant_id" });
  const found = tenant || tenant_id || "";
  if (found === "" && principal.id !== "local") throw badRequest("tenant_id", "is required");
  return found;
}

function milliseconds(query: Query, name: string): number | undefined {
  const text = query[name];
  if (text === undefined || text === "") return undefined;
  const value = Number(text);
  if (!Number.isFinite(value) || value < 0) throw badRequest(name, "must be a number of milliseconds");
  return Math.min(value, 2 ** 31 - 1);
}
