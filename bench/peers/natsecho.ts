/** A bare NATS responder: the library's own subscription and `respond`, the payload as it came, or as many bytes as it names. */
import { connect } from "@nats-io/transport-node";
import { serveOnly } from "../kit/peer.ts";
import { bareOptions } from "../kit/login.ts";

const subject = "aios.bench.echo";
const nc = await connect(bareOptions("bench-echo"));
nc.subscribe(subject, { callback: (_error, message) => void message.respond(message.data) });

const sized = "aios.bench.sized";
const replies = new Map<string, Buffer>();
nc.subscribe(sized, {
  callback(_error, message) {
    const size = message.string();
    let reply = replies.get(size);
    if (reply === undefined) replies.set(size, (reply = Buffer.alloc(Number(size), "x")));
    message.respond(reply);
  },
});
await nc.flush();
serveOnly({ subject, sized });
