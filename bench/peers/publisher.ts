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
  readonly payload: Uint8Array;
  readonly inFlight: number;
  readonly count: number;
}

const TIMEOUT_MS = 5_000;

const bus = await connectOurs("bench-publish");
const js = jetstream(await connect(bareOptions("bench-publish-bare")));

servePeer({}, ({ how, subject, payload, inFlight, count }: PublishLoad): Promise<Load> => {
  const bytes = Buffer.from(payload);
  const ours = awaited(() => publish(bus, subject, bytes, { timeoutMs: TIMEOUT_MS }));
  const library = awaited(() => js.publish(subject, bytes, { timeout: TIMEOUT_MS }));
  return runLoad(count, inFlight, how === "ours" ? ours : library);
});
