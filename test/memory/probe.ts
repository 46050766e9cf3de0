/**
 * What the contract says of each RPC of aios.memory, as probes that know nothing of the transport: the same list runs over NATS and over
 * gRPC. Every probe uses a tenant or ids of its own, so that they share one system.
 */
import type { Method, World } from "./world.ts";

/** One probe: `name` makes ids, `call` asks, `refused` gives the code of the error a call is refused with. */
export interface Probe {
  readonly name: string;
  readonly run: (at: At) => Promise<void>;
}

export interface At {
  readonly id: string;
  readonly call: World["call"];
  /** The lower-case code name of the error, and its message. Fails when the call succeeds. */
  readonly refused: (method: Method, request: object) => Promise<{ code: string; message: string }>;
}
