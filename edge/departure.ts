/** When the client of an HTTP request has left. */
import type { FastifyReply, FastifyRequest } from "fastify";

/** Calls `left` when the client leaves or has its answer, soon when it has left already: while its credential was checked. May call it twice. */
export function onDeparture({ raw: request }: FastifyRequest, { raw: response }: FastifyReply, left: () => void): void {
  request.once("close", left);
  response.once("close", left);
  if (response.destroyed) setImmediate(left);
}
