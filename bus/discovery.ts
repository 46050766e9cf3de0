/** NATS service discovery (ADR-32): `$SRV.PING|INFO|STATS[.name[.id]]`, so that the standard tooling lists the workers. */
import { nuid, type Msg, type Subscription } from "@nats-io/transport-node";
import type { Code } from "../contracts/errors.ts";
import type { Bus } from "./connect.ts";
import type { Endpoint } from "./endpoint.ts";
import { textOf } from "./headers.ts";
import { isReplyAddress } from "./replyaddress.ts";

/** What one endpoint has done since the worker started. */
export class EndpointStats {
  readonly endpoint: Endpoint;
  readonly queue: string;
  requests = 0;
  errors = 0;
  /** Sum of processing times, milliseconds. */
  totalMs = 0;
  lastError = "";
  readonly byCode = new Map<Code, number>();

  constructor(endpoint: Endpoint, queue: string) {
    this.endpoint = endpoint;
    this.queue = queue;
  }

  finished(ms: number, error: Code | undefined): void {
    this.totalMs += ms;
    if (error === undefined) this.requests++;
    else this.failed(error);
  }

  failed(code: Code): void {
    this.requests++;
    this.errors++;
    this.lastError = code;
    this.byCode.set(code, (this.byCode.get(code) ?? 0) + 1);
  }

  toJson(): Record<string, unknown> {
    const nanoseconds = Math.round(this.totalMs * 1e6);
    return {
      ...describe(this),
      num_requests: this.requests,
      num_errors: this.errors,
      last_error: this.lastError,
      processing_time: nanoseconds,
      average_processing_time: this.requests === 0 ? 0 : Math.round(nanoseconds / this.requests),
    };
  }
}

export interface ServiceIdentity {
  readonly name: string;
  readonly version: string;
}

export function answerDiscovery(bus: Bus, stats: readonly EndpointStats[], service: ServiceIdentity): Subscription[] {
  const identity = { name: service.name, id: nuid.next(), version: service.version, metadata: { process: bus.name } };
  const started = new Date().toISOString();
  const answers: Readonly<Record<string, () => object>> = {
    PING: () => ({ type: "io.nats.micro.v1.ping_response", ...identity }),
    INFO: () => ({
      type: "io.nats.micro.v1.info_response",
      ...identity,
      description: `Beamline ${service.name} worker`,
      endpoints: stats.map(describe),
    }),
    STATS: () => ({
      type: "io.nats.micro.v1.stats_response",
      ...identity,
      started,
      endpoints: stats.map((one) => one.toJson()),
    }),
  };
  return Object.entries(answers).flatMap(([verb, answer]) =>
    [`$SRV.${verb}`, `$SRV.${verb}.${service.name}`, `$SRV.${verb}.${service.name}.${identity.id}`].map((subject) =>
      bus.subscribe(subject, (message) => respond(bus, message, answer())),
    ),
  );
}

function describe({ endpoint, queue }: EndpointStats): Record<string, unknown> {
  return {
    name: endpoint.name,
    subject: endpoint.subject,
    queue_group: queue,
    metadata: { dialect: endpoint.dialect, kind: endpoint.kind },
  };
}

function respond(bus: Bus, message: Msg, answer: object): void {
  if (message.reply !== undefined && isReplyAddress(message.reply)) bus.send(message.reply, JSON.stringify(answer));
}

/** What a worker says of itself. */
export interface Present {
  readonly name: string;
  readonly id: string;
  readonly version: string;
  readonly metadata: { readonly process: string };
  /** ISO 8601; in answers to `STATS`, as the endpoints are. */
  readonly started?: string;
  readonly endpoints?: readonly {
    readonly num_requests: number;
    readonly num_errors: number;
    /** Nanoseconds. */
    readonly average_processing_time: number;
    readonly last_error: string;
  }[];
}

/** A worker's answer; undefined for another program's: those are asked, too, and may say anything. */
export function presentIn(message: Msg): Present | undefined {
  try {
    const answer = JSON.parse(textOf(message)) as Partial<Present> | null;
    return typeof answer?.name === "string" && typeof answer.metadata?.process === "string"
      ? (answer as Present)
      : undefined;
  } catch {
    return undefined;
  }
}
