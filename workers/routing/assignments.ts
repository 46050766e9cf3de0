/**
 * Assignments that follow from decisions (BeamLine, ExecAssignment, publication): durable, after the reply, with the assignment's id as message id.
 *
 * A1 Three tries, 100, 200 ms apart and up to a tenth more; every try carries the same message id, so the stream keeps one.
 * A2 One that could not be published is a dead letter; when even that fails it is logged whole. It never just vanishes.
 * A3 Whoever stops this worker waits for what is under way.
 */
import { setTimeout as pause } from "node:timers/promises";
import type { Bus } from "../../bus/connect.ts";
import { deadLetter } from "../../bus/deadletter.ts";
import { publish } from "../../bus/publish.ts";
import { assignmentOf, type OutgoingAssignment } from "../../contracts/execution/assignment.ts";
import { BeamlineError } from "../../contracts/errors.ts";
import { streams } from "../../contracts/streams.ts";
import type { Logger } from "../../runtime/log.ts";
import { executionMetrics } from "../../runtime/beamline.metrics.ts";
import type { Metrics, Registry } from "../../runtime/metrics.ts";
import { withSpan } from "../../runtime/trace.ts";
import type { Assignments, Handover } from "./ports.ts";

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
  readonly #underWay = new Set<Promise<void>>();

  constructor(bus: Bus, options: AssignmentOptions) {
    this.#bus = bus;
    this.#options = options;
    this.#metrics = options.registry.use(executionMetrics);
  }

  push({ request, decision, payload, traceparent }: Handover): void {
    const { enabled, tenants, newId } = this.#options;
    if (!enabled) return this.#blocked("disabled");
    if (tenants !== undefined && !tenants.has(request.tenant)) return this.#blocked("tenant_not_allowed");
    const assignment = assignmentOf(request, decision, {
      assignmentId: newId(),
      traceparent,
      ...(payload !== undefined && { payload }),
    });
    const attributes = { tenant_id: request.tenant, provider_id: decision.provider_id };
    const work = withSpan("beamline.router.publish.assignment", traceparent, attributes, () =>
      this.#publish(assignment, request.tenant),
    ).finally(() => this.#underWay.delete(work));
    this.#underWay.add(work);
  }

  /** A3. */
  async drain(): Promise<void> {
    await Promise.all(this.#underWay);
  }

  #blocked(reason: string): void {
    this.#metrics.router_assignment_blocked_total.with({ reason }).add();
  }

  /** A1, A2. Never rejects. */
  async #publish({ assignmentId, subject, msgId, headers, body }: OutgoingAssignment, tenant: string): Promise<void> {
    const { random, log } = this.#options;
    for (let attempt = 1; ; attempt++) {
      try {
        await publish(this.#bus, subject, body, { msgId, headers, timeoutMs: TRY_MS });
        return this.#metrics.router_assignment_published_total.with({ subject }).add();
      } catch (thrown) {
        const error = BeamlineError.from(thrown);
        if (attempt >= TRIES) {
          log.error("an assignment could not be published", {
            assignment_id: assignmentId,
            tenant_id: tenant,
            subject,
            error,
          });
          return this.#bury({ assignmentId, subject, msgId, headers, body }, error);
        }
        this.#metrics.router_assignment_retry_total.with({ subject }).add();
        await pause(FIRST_PAUSE_MS * 2 ** (attempt - 1) * (1 + 0.1 * random()));
      }
    }
  }

  /** A2: in the form of every dead letter, so that it can be redriven. */
  async #bury(
    { assignmentId, subject, msgId, headers, body }: OutgoingAssignment,
    error: BeamlineError,
  ): Promise<void> {
    this.#blocked("unpublished");
    const now = this.#options.now();
    const sequence = Math.floor(this.#options.random() * Number.MAX_SAFE_INTEGER);
    const origin = { subject, sequence, msgId, headers, attempt: TRIES, firstSeenMs: now };
    const rites = { reason: "processing_error", error, origin, stream: streams.exec.name, durable: "routing" } as const;
    try {
      const payload = Buffer.from(body, "utf8");
      await deadLetter(this.#bus, { ...rites, attempts: TRIES, timestamp: now }, payload, { timeoutMs: TRY_MS });
    } catch (thrown) {
      this.#options.log.error("an assignment is lost: neither its stream nor the dead letters take it", {
        assignment_id: assignmentId,
        assignment: body,
        error: BeamlineError.from(thrown),
      });
    }
  }
}
