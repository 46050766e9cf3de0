/**
 * Assignments that follow from decisions (BeamLine, ExecAssignment, publication): durable, after the reply, with the assignment's id as message id.
 *
 * A1 Three tries, 100, 200 ms apart and up to a tenth more; every try carries the same message id, so the stream keeps one.
 * A2 One that cannot be published is a dead letter. When it is the bus that is away, or even that fails, its promise stays and is tried again some
 *    seconds later. It never just vanishes.
 * A3 Whoever stops this worker waits for what is under way.
 * A4 Promised before the reply (promises.nats.ts), published after it: a worker that dies in between leaves the promise, which another one keeps.
 * A5 The assignment of a keyed request has an id made of tenant, key and content, so that a request which is repeated after such a death is one
 *    assignment still. The stretch of time a key lives is part of it: a key that is used anew after its time is another request.
 */
import { setTimeout as pause } from "node:timers/promises";
import type { Bus } from "../../../bus/connect.ts";
import { deadLetter } from "../../../bus/deadletter.ts";
import { publish } from "../../../bus/publish.ts";
import { assignmentOf, type OutgoingAssignment } from "../../../contracts/execution/assignment.ts";
import { BeamlineError } from "../../../contracts/errors.ts";
import { streams } from "../../../contracts/streams.ts";
import type { Logger } from "../../../runtime/log.ts";
import { executionMetrics } from "../../../runtime/beamline.metrics.ts";
import type { Metrics, Registry } from "../../../runtime/metrics.ts";
import { withSpan } from "../../../runtime/trace.ts";
import type { RoutingRequest } from "../intake/forms.ts";
import type { Assignments, Handover, Promised } from "../ports.ts";
import { Promises, type Keep } from "./promises.nats.ts";
import { digestOf } from "../shared/shared.ts";
import { KEY_TTL_MS } from "../shared/shared.lua.ts";
import { uuidOf } from "../intake/uuid.ts";

const TRIES = 3;
const FIRST_PAUSE_MS = 100;
const TRY_MS = 2_000;

export interface AssignmentOptions {
  /** False publishes none. */
  readonly enabled: boolean;
  /** Tenants whose assignments are published; all when undefined. */
  readonly tenants: ReadonlySet<string> | undefined;
  readonly newId: () => string;
  readonly random: () => number;
  readonly now: () => number;
  readonly log: Logger;
  readonly registry: Registry;
}

export class BusAssignments implements Assignments {
  readonly #bus: Bus;
  readonly #options: AssignmentOptions;
  readonly #metrics: Metrics<typeof executionMetrics>;
  readonly #promises: Promises;
  readonly #underWay = new Set<Promise<unknown>>();

  constructor(bus: Bus, options: AssignmentOptions) {
    this.#bus = bus;
    this.#options = options;
    this.#metrics = options.registry.use(executionMetrics);
    this.#promises = new Promises(bus, options);
  }

  async promise(handover: Handover): Promise<Promised | undefined> {
    const { enabled, tenants, newId, now } = this.#options;
    const { request, decision, payload, traceparent } = handover;
    if (!enabled) return this.#blocked("disabled");
    if (tenants !== undefined && !tenants.has(request.tenant)) return this.#blocked("tenant_not_allowed");
    const assignment = assignmentOf(request, decision, {
      assignmentId: request.idempotencyKey === "" ? newId() : keyedId(request, now()),
      traceparent,
      ...(payload !== undefined && { payload }),
    });
    const kept = await this.#promises.make(assignment);
    const attributes = { tenant_id: request.tenant, provider_id: decision.provider_id };
    return {
      keep: () => {
        const work = withSpan("beamline.router.publish.assignment", traceparent, attributes, () =>
          this.#publish(assignment),
        )
          .then(kept)
          .catch((thrown: unknown) => this.#left(assignment, thrown))
          .finally(() => this.#underWay.delete(work));
        this.#underWay.add(work);
      },
    };
  }

  /** Keeps promises whose worker died: published here unless they were before. Throws what could be neither published nor buried. */
  readonly keepLeftOver: Keep = async (assignment) => {
    this.#options.log.warn("an assignment whose router died is published", { assignment_id: assignment.assignmentId });
    await this.#publish(assignment);
  };

  /** A3. */
  async drain(): Promise<void> {
    await Promise.all(this.#underWay);
  }

  #blocked(reason: string): undefined {
    this.#metrics.router_assignment_blocked_total.with({ reason }).add();
  }

  #left({ assignmentId }: OutgoingAssignment, thrown: unknown): void {
    this.#options.log.error("an assignment could not be published; its promise stays, and it is tried again", {
      assignment_id: assignmentId,
      error: BeamlineError.from(thrown),
    });
  }

  /** A1, A2. Throws what may be over when its promise fires, and what the dead letters refused. */
  async #publish(assignment: OutgoingAssignment): Promise<void> {
    const { assignmentId, subject, msgId, headers, body } = assignment;
    const { random, log } = this.#options;
    for (let attempt = 1; ; attempt++) {
      try {
        await publish(this.#bus, subject, body, { msgId, headers, timeoutMs: TRY_MS });
        return this.#metrics.router_assignment_published_total.with({ subject }).add();
      } catch (thrown) {
        const error = BeamlineError.from(thrown);
        if (attempt >= TRIES) {
          if (isAway(error)) throw error;
          log.error("an assignment could not be published", { assignment_id: assignmentId, subject, error });
          return this.#bury(assignment, error);
        }
        this.#metrics.router_assignment_retry_total.with({ subject }).add();
        await pause(FIRST_PAUSE_MS * 2 ** (attempt - 1) * (1 + 0.1 * random()));
      }
    }
  }

  /** A2: in the form of every dead letter, so that it can be redriven. */
  async #bury({ subject, msgId, headers, body }: OutgoingAssignment, error: BeamlineError): Promise<void> {
    this.#blocked("unpublished");
    const now = this.#options.now();
    const sequence = Math.floor(this.#options.random() * Number.MAX_SAFE_INTEGER);
    const origin = { subject, sequence, msgId, headers, attempt: TRIES, firstSeenMs: now };
    const rites = { reason: "processing_error", error, origin, stream: streams.exec.name, durable: "routing" } as const;
    const payload = Buffer.from(body, "utf8");
    await deadLetter(this.#bus, { ...rites, attempts: TRIES, timestamp: now }, payload, { timeoutMs: TRY_MS });
  }
}

/** Whether the bus did not answer, rather than that no stream takes the subject. */
function isAway({ code, details }: BeamlineError): boolean {
  const { streams: takers } = details;
  return code === "deadline_exceeded" || (code === "unavailable" && !(Array.isArray(takers) && takers.length === 0));
}

/** A5. */
function keyedId(request: RoutingRequest, now: number): string {
  const { tenant, idempotencyKey } = request;
  return uuidOf(tenant, idempotencyKey, digestOf(request), Math.floor(now / (request.keyTtlMs ?? KEY_TTL_MS)));
}
