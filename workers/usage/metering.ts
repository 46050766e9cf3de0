/**
 * Exactly one usage event per assignment (BeamLine, usage event).
 *
 * M1 The event carries the message id `usage-<assignment_id>`, and the stream keeps one message per id; so two replicas, a redelivery and a lost Redis
 *    end in one event.
 * M2 Nothing is marked as metered before its event is stored.
 * M3 A result that comes again is looked up in the stream before its event is published: who listens without the stream would hear it twice.
 */
import type { Bus } from "../../bus/connect.ts";
import { findDuplicate } from "../../bus/publish.ts";
import { publishRetrying } from "../../bus/retrying.ts";
import { resultHeaders, type Result } from "../../contracts/execution/result.ts";
import { execSubject, probeSubject, usageMsgId } from "../../contracts/execution/subjects.ts";
import { usageOf } from "../../contracts/execution/usage.ts";
import type { Measures } from "./measures.ts";
import type { Seen } from "./seen.redis.ts";

type Ids = Pick<Result, "assignment_id" | "request_id" | "tenant_id">;

export class Metering {
  readonly #bus: Bus;
  readonly #seen: Seen;
  readonly #measures: Measures;
  readonly #publish: boolean;

  /** `publish` false switches the events off, not the bookkeeping. */
  constructor(bus: Bus, seen: Seen, measures: Measures, publish: boolean) {
    this.#bus = bus;
    this.#seen = seen;
    this.#measures = measures;
    this.#publish = publish;
  }

  /**
   * Meters a result; `again` when it has come before (M3). False when it was metered before. Throws as `publishRetrying`: the result must then come
   * again.
   */
  async meter(result: Result, traceparent: string, again: boolean): Promise<boolean> {
    const { tenant_id, provider_id, job } = result;
    const id = usageMsgId(result);
    if (await this.#seen.wasMetered(tenant_id, id)) return false;
    if (again && this.#publish && (await findDuplicate(this.#bus, probeSubject.usage, id)) !== undefined) {
      await this.#seen.markMetered(tenant_id, id);
      return false;
    }
    let first = true;
    if (this.#publish) {
      try {
        const { duplicate } = await publishRetrying(this.#bus, execSubject.usage, JSON.stringify(usageOf(result)), {
          headers: resultHeaders(result, traceparent),
          msgId: id,
          timeoutMs: 10_000,
        });
        first = !duplicate;
      } catch (thrown) {
        this.#measures.router_usage_emit_failed_total.with({ reason: "unavailable" }).add();
        throw thrown;
      }
    }
    const marked = await this.#seen.markMetered(tenant_id, id);
    if (!this.#publish) return marked;
    if (first) {
      this.#measures.router_usage_emitted_total.with({ tenant_id, provider_id }).add();
      this.#measures.beamline_usage_events_total.with({ tenant_id, event_type: job.type }).add();
    }
    return first;
  }

  /** Whether a result of the assignment was metered, or at least is on its way to be. */
  async isSettled(ids: Ids, resultMsgId: string): Promise<boolean> {
    if (await this.#seen.wasMetered(ids.tenant_id, usageMsgId(ids))) return true;
    if ((await findDuplicate(this.#bus, probeSubject.exec, resultMsgId)) !== undefined) return true;
    return (await findDuplicate(this.#bus, probeSubject.usage, usageMsgId(ids))) !== undefined;
  }
}
