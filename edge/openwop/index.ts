/** OpenWOP at the edge: what edge/edge.ts adds to its listeners. */
import type { FastifyInstance } from "fastify";
import type { Headers } from "../../contracts/headers.ts";
import type { Route } from "../../contracts/routes.ts";
import type { EventSource } from "../forward.ts";
import { Admission, type AdmissionOptions } from "./admission.ts";
import { streamRunEvents, STREAM_PATH } from "./grpc.ts";
import { openwopHttp, type HttpOptions } from "./http.ts";

export interface OpenwopEdge {
  /** Event sources by gRPC path, for `Forwarding.events`. */
  readonly events: readonly (readonly [string, EventSource])[];
  /** Lets an RPC in, for `Forwarding.admit`; counts together with REST. */
  admit(this: void, route: Route, headers: Headers): (() => void) | undefined;
  /** REST and SSE, for `openHttp`. */
  routes(this: void, app: FastifyInstance): void;
}

const DISCOVERY = "GetCapabilities";

export function openwopEdge(options: Omit<HttpOptions, "admission"> & AdmissionOptions): OpenwopEdge {
  const admission = new Admission(options);
  return {
    events: [[STREAM_PATH, streamRunEvents(options.caller.bus)]],
    admit: ({ dialect, method }, headers) =>
      dialect === "openwop" && method.name !== DISCOVERY ? admission.enter(headers) : undefined,
    routes: (app) => openwopHttp(app, { ...options, admission }),
  };
}
