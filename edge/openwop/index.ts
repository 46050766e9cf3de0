/** OpenWOP at the edge: what edge/edge.ts adds to its listeners. */
import type { FastifyInstance } from "fastify";
import type { EventSource } from "../forward.ts";
import { streamRunEvents, STREAM_PATH } from "./grpc.ts";
import { openwopHttp, type HttpOptions } from "./http.ts";

export interface OpenwopEdge {
  /** Event sources by gRPC path, for `Forwarding.events`. */
  readonly events: readonly (readonly [string, EventSource])[];
  /** REST and SSE, for `openHttp`. */
  routes(app: FastifyInstance): void;
}

export function openwopEdge(options: HttpOptions): OpenwopEdge {
  return {
    events: [[STREAM_PATH, streamRunEvents(options.caller.bus)]],
    routes: (app) => openwopHttp(app, options),
  };
}
