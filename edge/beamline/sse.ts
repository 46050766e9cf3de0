/** Server-sent events as BeamLine's gateways send them: `data:` lines with JSON, heartbeats among them. */
import type { FastifyReply, FastifyRequest } from "fastify";
import { onDeparture } from "../departure.ts";

export interface Channel {
  /** Sends one event; `name` when clients listen by name. A client that reads too slowly is let go. */
  send(data: unknown, event?: { readonly name?: string; readonly id?: number }): void;
  close(): void;
}

/** Bytes held for a client that does not read before it is let go. */
const MOST_HELD = 4 * 1024 * 1024;

/** Takes the connection over. `onClose` runs once, whoever ends it. */
export function openChannel(request: FastifyRequest, reply: FastifyReply, onClose: () => void): Channel {
  void reply.hijack();
  const response = reply.raw;
  for (const [name, value] of Object.entries(reply.getHeaders()))
    if (value !== undefined) response.setHeader(name, value);
  response.writeHead(200, {
    "content-type": "text/event-stream",
    "cache-control": "no-cache, no-transform",
    connection: "keep-alive",
    "x-accel-buffering": "no",
  });
  response.write(": connected\n\n");
  let open = true;
  const close = (): void => {
    if (!open) return;
    open = false;
    onClose();
    response.end();
  };
  onDeparture(request, reply, close);
  return {
    send(data, { name, id } = {}) {
      if (!open) return;
      const head = `${id === undefined ? "" : `id: ${id}\n`}${name === undefined ? "" : `event: ${name}\n`}`;
      response.write(`${head}data: ${JSON.stringify(data)}\n\n`);
      if (response.writableLength <= MOST_HELD) return;
      close();
      response.destroy();
    },
    close,
  };
}

/** Every so many milliseconds `{"heartbeat":true,"ts":<epoch ms>}` (BeamLine, results stream). Returns how to end it. */
export function beat(channel: Channel, everyMs: number, now: () => number): () => void {
  const timer = setInterval(() => channel.send({ heartbeat: true, ts: now() }), everyMs).unref();
  return () => clearInterval(timer);
}
