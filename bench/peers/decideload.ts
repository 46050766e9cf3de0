/** Decisions over NATS by our caller, each request new: its message id, its session or its idempotency key. */
import { Caller, isError } from "../../bus/call.ts";
import type { Load } from "../case.ts";
import { runLoad } from "../kit/load.ts";
import { connectOurs } from "../kit/login.ts";
import { servePeer } from "../kit/peer.ts";

export interface DecideLoad {
  readonly policy: string;
  /** Whether each request brings an idempotency key of its own. */
  readonly keyed: boolean;
  /** Sessions, used in turn. */
  readonly sessions: number;
  readonly inFlight: number;
  readonly count: number;
}

const caller = new Caller(await connectOurs("bench-decide"));
const payload = JSON.stringify({ prompt: "Summarise the quarterly report in three sentences.", max_tokens: 256 });
let run = 0;

servePeer({}, ({ policy, keyed, sessions, inFlight, count }: DecideLoad): Promise<Load> => {
  const mine = `${process.pid}-${++run}`;
  return runLoad(count, inFlight, (index, done) => {
    const id = `${mine}-${index}`;
    const request = {
      message: { message_id: id, tenant_id: "acme", message_type: "chat", payload },
      policy_id: policy,
      context: { session_id: `session-${index % sessions}`, priority: "normal" },
      ...(keyed && { idempotency_key: id }),
    };
    caller.start("beamline.router.v1.decide", JSON.stringify(request), { timeoutMs: 20_000 }, (error, reply) => {
      if (reply !== undefined && isError(reply.headers)) done(new Error(reply.text));
      else done(error);
    });
  });
});
