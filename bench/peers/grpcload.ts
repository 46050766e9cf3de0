/** A grpc-js client as load generator: a fixed number of unary calls, so many in flight. The bytes are ready made; replies are not decoded. */
import { Client, credentials, Metadata } from "@grpc/grpc-js";
import type { Load } from "../case.ts";
import { servePeer } from "../kit/peer.ts";
import { runLoad } from "../kit/load.ts";

export interface GrpcLoad {
  /** `host:port`. */
  readonly address: string;
  /** `/package.Service/Method`. */
  readonly path: string;
  /** Request messages, used in turn. */
  readonly bodies: readonly Uint8Array[];
  readonly metadata?: Readonly<Record<string, string>>;
  readonly inFlight: number;
  readonly count: number;
  /** Connections the calls are spread over. Default 4. */
  readonly connections?: number;
}

const DEADLINE_MS = 20_000;
const asIs = (bytes: Buffer): Buffer => bytes;
const clients = new Map<string, Client[]>();

/** Connections stay from load to load. */
function clientsOf(address: string, connections: number): Client[] {
  const known = clients.get(address) ?? [];
  for (let i = known.length; i < connections; i++) {
    known.push(new Client(address, credentials.createInsecure(), { "grpc.use_local_subchannel_pool": 1 }));
  }
  clients.set(address, known);
  return known.slice(0, connections);
}

servePeer({}, ({ address, path, bodies, metadata = {}, inFlight, count, connections = 4 }: GrpcLoad): Promise<Load> => {
  const open = clientsOf(address, Math.min(connections, inFlight));
  const requests = bodies.map((body) => Buffer.from(body.buffer, body.byteOffset, body.byteLength));
  const headers = Object.entries(metadata);
  return runLoad(count, inFlight, (index, done) => {
    const client = open[index % open.length];
    const request = requests[index % requests.length];
    if (client === undefined || request === undefined) throw new Error("nothing to send");
    const own = new Metadata();
    for (const [name, value] of headers) own.set(name, value);
    client.makeUnaryRequest(path, asIs, asIs, request, own, { deadline: Date.now() + DEADLINE_MS }, (error) => {
      done(error === null ? undefined : error);
    });
  });
});
