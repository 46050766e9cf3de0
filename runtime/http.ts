/** The HTTP listener of a process: probes and metrics for every one, REST and SSE beside them at the edge. */
import type { AddressInfo } from "node:net";
import { fastify, type FastifyInstance, type FastifyReply } from "fastify";
import { isoMicros, systemClock } from "./clock.ts";
import { forGateways } from "./gatewayscrape.ts";
import type { Health } from "./health.ts";
import { cannotListen } from "./listening.ts";
import { formatAddress, type Address } from "./setting.ts";
import { METRICS_CONTENT_TYPE, type Telemetry } from "./telemetry.ts";

function unreadable(message: string): { readonly error: string; readonly message: string } {
  return { error: "validation_error", message };
}

export interface HttpListener {
  readonly port: number;
  close(): Promise<void>;
}

/** How long a request may take to arrive, milliseconds: a sender that stops in the middle would have its connection for ever. */
const RECEIVE_MS = 120_000;

/** What is wrong with a request that could not be read, by the code of its error. */
const UNREADABLE: Readonly<Record<string, readonly [status: string, what: string]>> = {
  HPE_HEADER_OVERFLOW: ["431 Request Header Fields Too Large", "the request's headers are too large"],
  ERR_HTTP_REQUEST_TIMEOUT: ["408 Request Timeout", "the request did not arrive in time"],
};

/**
 * A server with no routes yet. What it refuses before any route is found are errors in the words all contracts share. A request arrives within
 * `receiveMs`; the answer may take as long as it wants.
 */
export function httpServer(receiveMs = RECEIVE_MS): FastifyInstance {
  return fastify({
    logger: false,
    requestTimeout: receiveMs,
    http: { connectionsCheckingInterval: Math.min(receiveMs, 30_000), headersTimeout: Math.min(receiveMs, 60_000) },
    forceCloseConnections: true,
    // Ids of every contract fit, and whatever is longer is told from one by who knows it.
    routerOptions: { maxParamLength: 1_024 },
    frameworkErrors(_error, _request, reply: FastifyReply) {
      void reply.code(400).send(unreadable("the path is not valid"));
    },
    clientErrorHandler(error, socket) {
      if (!socket.writable) return void socket.destroy();
      const [status, what] = UNREADABLE[error.code] ?? ["400 Bad Request", "the request cannot be read"];
      const text = JSON.stringify(unreadable(what));
      const headers = `Content-Type: application/json; charset=utf-8\r\nContent-Length: ${Buffer.byteLength(text)}`;
      socket.end(`HTTP/1.1 ${status}\r\n${headers}\r\nConnection: close\r\n\r\n${text}`);
    },
  });
}

/**
 * Serves `/healthz` (the process lives), `/readyz` (every part serves; 503 naming the one that does not) and `/metrics` (Prometheus),
 * also under the names BeamLine's own programs use, and whatever `routes` adds. Port 0 takes a free one.
 * Throws as `cannotListen`, naming the address and the setting it is of.
 */
export async function openHttp(
  setting: string,
  address: Address,
  health: Health,
  telemetry: Telemetry,
  routes?: (app: FastifyInstance) => void,
): Promise<HttpListener> {
  const app = httpServer();
  for (const path of ["/healthz", "/health", "/_health"]) {
    app.get(path, (_request, reply) => {
      const live = health.live();
      return reply
        .code(live ? 200 : 503)
        .send({ status: live ? "healthy" : "unhealthy", timestamp: isoMicros(systemClock.micros()) });
    });
  }
  app.get("/readyz", async (_request, reply) => {
    const state = await health.ready();
    return reply.code(state.ok ? 200 : 503).send(state);
  });
  app.get("/metrics", async (_request, reply) => reply.type(METRICS_CONTENT_TYPE).send(await telemetry.metricsText()));
  app.get("/_metrics", async (_request, reply) =>
    reply.type(METRICS_CONTENT_TYPE).send(forGateways(await telemetry.metricsText())),
  );
  app.setNotFoundHandler((request, reply) => {
    const path = request.url.split("?")[0] ?? "";
    return reply.code(404).send({ error: "not_found", message: `no route ${request.method} ${path}` });
  });
  routes?.(app);
  try {
    await app.listen({ host: address.host, port: address.port });
  } catch (cause) {
    throw cannotListen(setting, formatAddress(address), cause);
  }
  return { port: (app.server.address() as AddressInfo).port, close: () => app.close() };
}
