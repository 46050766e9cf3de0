/** A bare NATS responder: the library's own subscription and `respond`, the payload as it came. */
import { connect } from "@nats-io/transport-node";
import { serveOnly } from "../kit/peer.ts";
import { bareOptions } from "../kit/login.ts";

const subject = "aios.bench.echo";
const nc = await connect(bareOptions("bench-echo"));
nc.subscribe(subject, { callback: (_error, message) => void message.respond(message.data) });
await nc.flush();
serveOnly({ subject });
