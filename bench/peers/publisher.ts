/** Durable publishes: ours with parsed acknowledgement and timeout, or the client library's `js.publish()` on its own connection. */
import { connect } from "@nats-io/transport-node";
import { jetstream } from "@nats-io/jetstream";
import { publish } from "../../bus/publish.ts";
import type { Load } from "../case.ts";
import { awaited, runLoad } from "../kit/load.ts";
import { bareOptions, connectOurs } from "../kit/login.ts";
import { servePeer } from "../kit/peer.ts";

export interface PublishLoad {
  readonly how: "ours" | "library";
  readonly subject: string;
  /** JSON text, as the system publishes it. */
  readonly payload: string;
  readonly inFlight: number;
  readonly count: number;
}

const TIMEOUT_MS = 5_000;

const bus = await connectOurs("bench-publish");
const js = jetstream(await connect(bareOptions("bench-publish-bare")));

servePeer({}, ({ how, subject, payload, inFlight, count }: PublishLoad): Promise<Load> => {
  const ours = awaited(() => publish(bus, subject, payload, { timeoutMs: TIMEOUT_MS }));
  const library = awaited(() => js.publish(subject, payload, { timeout: TIMEOUT_MS }));
  return runLoad(count, inFlight, how === "ours" ? ours : library);
});
