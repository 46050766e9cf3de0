/**
 * The durable consumer on the server: made, kept up to date, and made again when it was deleted.
 *
 * `max_deliver` is unlimited there: a server that reaches its own limit stops delivering and tells only whoever happens to listen, so the
 * message would vanish in silence. Counting is ours, and ends in a dead letter.
 */
import { nanos } from "@nats-io/transport-node";
import type { ConsumerConfig, ConsumerInfo } from "@nats-io/jetstream";
import { apiCode, apiCodeOf, asking } from "./apierror.ts";
import type { Bus } from "./connect.ts";

export interface DurableConfig {
  readonly stream: string;
  readonly durable: string;
  readonly filterSubjects: readonly string[];
  readonly ackWaitMs: number;
  /** Unacknowledged messages of all replicas together. */
  readonly maxAckPending: number;
}

/** What is known of a consumer, so that it can be made again where it was. */
export interface Position {
  /** When its stream was made: another stream of the same name starts anew. */
  readonly streamCreated: string;
  /** Every message up to this sequence was acknowledged. */
  readonly floor: number;
  /** Messages not yet delivered. */
  readonly pending: number;
  /** Messages delivered and not yet acknowledged. */
  readonly ackPending: number;
}

const EXISTS = 10_148;

/**
 * Makes or updates the consumer. A new one starts at the first message, one that was deleted after what `known` says was acknowledged.
 * Throws `not_found` without the stream, `failed_precondition` when a consumer of another kind has the name, `unavailable`.
 */
export async function ensureDurable(bus: Bus, config: DurableConfig, known?: Position): Promise<Position> {
  const { stream, durable } = config;
  return asking(`consumer ${durable} of stream ${stream}`, async () => {
    const { created, config: held } = await bus.jsm.streams.info(stream);
    const existing = await infoOf(bus, stream, durable);
    if (existing === undefined) {
      // A work queue keeps only what was not acknowledged, and takes no other start than the first.
      const resumes = known !== undefined && known.streamCreated === created && held.retention !== "workqueue";
      const floor = resumes ? known.floor : 0;
      return positionOf(await make(bus, config, floor), created);
    }
    const change = changeTo(config, existing.config);
    if (change === undefined) return positionOf(existing, created);
    return positionOf(await bus.jsm.consumers.update(stream, durable, change), created);
  });
}

/** Where the consumer is now; undefined when it, or its stream, is gone. */
export async function positionNow(
  bus: Bus,
  { stream, durable }: DurableConfig,
  known: Position,
): Promise<Position | undefined> {
  const info = await asking(`consumer ${durable} of stream ${stream}`, () => infoOf(bus, stream, durable));
  return info === undefined ? undefined : positionOf(info, known.streamCreated);
}

async function infoOf(bus: Bus, stream: string, durable: string): Promise<ConsumerInfo | undefined> {
  try {
    return await bus.jsm.consumers.info(stream, durable);
  } catch (thrown) {
    if (apiCodeOf(thrown) === apiCode.consumerNotFound) return undefined;
    throw thrown;
  }
}

async function make(bus: Bus, config: DurableConfig, floor: number): Promise<ConsumerInfo> {
  const { stream, durable } = config;
  try {
    return await bus.jsm.consumers.add(stream, {
      ...updatable(config),
      durable_name: durable,
      ack_policy: "explicit",
      ...(floor > 0 ? { deliver_policy: "by_start_sequence", opt_start_seq: floor + 1 } : { deliver_policy: "all" }),
    });
  } catch (thrown) {
    // A replica was first, with another start: both are safe.
    if (apiCodeOf(thrown) !== EXISTS) throw thrown;
    return bus.jsm.consumers.info(stream, durable);
  }
}

function updatable({ filterSubjects, ackWaitMs, maxAckPending }: DurableConfig): Partial<ConsumerConfig> {
  return {
    filter_subjects: [...filterSubjects],
    ack_wait: nanos(ackWaitMs),
    max_ack_pending: maxAckPending,
    max_deliver: -1,
  };
}

function changeTo(config: DurableConfig, current: ConsumerConfig): Partial<ConsumerConfig> | undefined {
  const wanted = updatable(config);
  const filters = current.filter_subjects ?? (current.filter_subject === undefined ? [] : [current.filter_subject]);
  const same =
    [...filters].sort().join(" ") === [...config.filterSubjects].sort().join(" ") &&
    current.ack_wait === wanted.ack_wait &&
    current.max_ack_pending === wanted.max_ack_pending &&
    current.max_deliver === wanted.max_deliver;
  return same ? undefined : wanted;
}

function positionOf(info: ConsumerInfo, streamCreated: string): Position {
  return {
    streamCreated,
    floor: info.ack_floor.stream_seq,
    pending: info.num_pending,
    ackPending: info.num_ack_pending,
  };
}
