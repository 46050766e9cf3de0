/** A bare grpc-js server that decodes a RouteRequest and encodes it again as the answer: what the edge is measured against. */
import { Server, ServerCredentials, type sendUnaryData, type ServerUnaryCall } from "@grpc/grpc-js";
import { RouteRequest } from "../../contracts/gen/beamline/flow/v1/flow.ts";
import { servePeer } from "../kit/peer.ts";

const bytesOf = (message: RouteRequest): Buffer => Buffer.from(RouteRequest.encode(message).finish());
const ofBytes = (bytes: Buffer): RouteRequest => RouteRequest.decode(bytes);
let answered = 0;

const server = new Server();
server.addService(
  {
    decide: {
      path: "/beamline.flow.v1.Router/Decide",
      requestStream: false,
      responseStream: false,
      requestSerialize: bytesOf,
      requestDeserialize: ofBytes,
      responseSerialize: bytesOf,
      responseDeserialize: ofBytes,
    },
  },
  {
    decide(call: ServerUnaryCall<RouteRequest, RouteRequest>, done: sendUnaryData<RouteRequest>) {
      answered++;
      done(null, call.request);
    },
  },
);
const port = await new Promise<number>((resolve, reject) => {
  server.bindAsync("127.0.0.1:0", ServerCredentials.createInsecure(), (error, bound) => {
    if (error === null) resolve(bound);
    else reject(error);
  });
});
servePeer({ port }, () => Promise.resolve(answered));
