/**
 * Results of assignments, in the order of the contract (BeamLine, headers; tenant validation; usage event): read, header violations counted, tenant
 * checked, metered once, health told. What breaks the contract in its fields is a dead letter; what was seen before is acknowledged and counted.
 */
import type { MessageHandler } from "../../bus/consume.ts";
import { healthOutcome } from "../../contracts/execution/catalogue.ts";
import { headerViolations } from "../../contracts/execution/reading.ts";
import { readResult } from "../../contracts/execution/result.ts";
import { execSubject } from "../../contracts/execution/subjects.ts";
import { header } from "../../contracts/headers.ts";
import type { Logger } from "../../runtime/log.ts";
import { acceptTraceparent, SpanKind, withSpan } from "../../runtime/trace.ts";
import type { HealthBook } from "./health.ts";
import type { Measures } from "./measures.ts";
import type { Metering } from "./metering.ts";
import type { CheckTenant } from "./tenants.ts";

/** In the metadata of results the router made itself for lost workers: they say nothing about the provider. */
export const REPORTED_BY = "reported_by";

export interface ResultPorts {
  readonly metering: Metering;
  readonly health: HealthBook;
  readonly checkTenant: CheckTenant;
  readonly measures: Measures;
  readonly log: Logger;
}

export function resultHandler({ metering, health, checkTenant, measures, log }: ResultPorts): MessageHandler {
  const subject = execSubject.result;
  return async (payload, { headers, msgId, timestampMs, deliveryCount, attempt }) => {
    for (const violation of headerViolations(headers, msgId)) {
      measures.router_nats_contract_violations_total.with({ subject, violation }).add();
      log.warn("a result breaks the header contract", {
        contract_violation: true,
        violation,
        subject,
        trace_id: headers[header.traceId],
      });
    }
    const { result } = readResult(payload, headers, timestampMs);
    checkTenant(result.tenant_id);
    const traceparent = acceptTraceparent(headers[header.traceparent]);
    const attributes = { tenant_id: result.tenant_id, provider_id: result.provider_id, status: result.status };
    const first = await withSpan(
      "beamline.router.process.result",
      traceparent,
      attributes,
      (onward) => metering.meter(result, onward, deliveryCount > 1 || attempt > 1),
      SpanKind.CONSUMER,
    );
    if (!first) return measures.router_results_duplicate_total.with().add();
    measures.router_results_total.with({ status: result.status }).add();
    const outcome = healthOutcome(result);
    if (outcome === "ignored" || result.metadata[REPORTED_BY] !== undefined) return;
    const { latency_ms, cost, error_code, timestamp: at_ms } = result;
    health.observe(result.tenant_id, result.provider_id, { outcome, latency_ms, cost, error_code, at_ms });
  };
}
