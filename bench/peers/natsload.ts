/** Requests over NATS: by our muxed caller, or by the library's own `request()` on a connection with its own defaults. */
import { connect, type NatsConnection } from "@nats-io/transport-node";
import { Caller, isError } from "../../bus/call.ts";
import type { Headers } from "../../contracts/headers.ts";
import type { Load } from "../case.ts";
import { awaited, runLoad, type StartCall } from "../kit/load.ts";
import { bareOptions, connectOurs } from "../kit/login.ts";
import { servePeer } from "../kit/peer.ts";

export interface NatsLoad {
  readonly how: "muxed" | "library";
  readonly subject: string;
  /** JSON texts, used in turn. */
  readonly bodies: readonly string[];
  /** `muxed` only. */
  readonly headers?: Headers;
  readonly inFlight: number;
  readonly count: number;
}

const TIMEOUT_MS = 20_000;

const caller = new Caller(await connectOurs("bench-load"));
const bare = await connect(bareOptions("bench-load-bare"));

function muxed({ subject, bodies, headers }: NatsLoad): StartCall {
  const options = { timeoutMs: TIMEOUT_MS, ...(headers !== undefined && { headers }) };
  return (index, done) => {
    caller.start(subject, bodies[index % bodies.length] ?? "", options, (error, reply) => {
      if (reply !== undefined && isError(reply.headers)) done(new Error(reply.text));
      else done(error);
    });
  };
}

function library(nc: NatsConnection, { subject, bodies }: NatsLoad): StartCall {
  const texts = bodies.map((body) => Buffer.from(body, "utf8"));
  return awaited(async (index) => {
    const reply = await nc.request(subject, texts[index % texts.length], { timeout: TIMEOUT_MS });
    if (reply.headers?.has("Nats-Service-Error-Code") === true) throw new Error(reply.string());
  });
}

servePeer({}, (load: NatsLoad): Promise<Load> =>
  runLoad(load.count, load.inFlight, load.how === "muxed" ? muxed(load) : library(bare, load)),
);
