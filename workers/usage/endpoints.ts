/** What the usage worker answers: totals, and cancellation. Subjects beside the router's, since its gateways ask there (BeamLine, REST gateway). */
import { requestEndpoint, type Endpoint } from "../../bus/endpoint.ts";
import { parseJson } from "../../bus/call.ts";
import { isObject, requiredText, text } from "../../contracts/execution/reading.ts";
import { execSubject, resultMsgId } from "../../contracts/execution/subjects.ts";
import { dollarsOf } from "../../contracts/execution/usage.ts";
import type { JsonObject } from "../../contracts/codec.ts";
import { BeamlineError, invalidArgument } from "../../contracts/errors.ts";
import type { CallContext } from "../../contracts/handlers.ts";
import { header } from "../../contracts/headers.ts";
import type { Cancels } from "./cancels.ts";
import type { Metering } from "./metering.ts";
import type { Totals } from "./totals.ts";

export interface EndpointPorts {
  readonly totals: Totals;
  readonly cancels: Cancels;
  readonly metering: Metering;
  /** Epoch milliseconds. */
  readonly now: () => number;
}

const DAY_MS = 24 * 60 * 60 * 1000;
/** Longest stretch one question may be about, days. */
const MAX_DAYS = 400;

/**
 * - `beamline.router.v1.usage`: `{tenant_id, start_date?, end_date?, provider_id?}`, dates as `YYYY-MM-DD` in UTC, both inclusive, the last 30 days by
 *   default → `{tenant_id, start_date, end_date, records: [{day, provider_id, requests, by_status, latency_ms_avg, cost}], total_requests, total_cost}`.
 * - `beamline.router.v1.cancel`: `{assignment_id, tenant_id, reason?}` → `{ok, assignment_id, status}`, `cancelling` or `finished`.
 */
export function usageEndpoints({ totals, cancels, metering, now }: EndpointPorts): Endpoint[] {
  return [
    endpoint(execSubject.usageTotals, async (body, context) => {
      const tenant = tenantOf(body, context);
      const end = dateOf(body, "end_date") ?? dayStart(now());
      const start = dateOf(body, "start_date") ?? end - 29 * DAY_MS;
      if (start > end) throw invalidArgument("start_date", "must not be after end_date");
      if ((end - start) / DAY_MS >= MAX_DAYS)
        throw invalidArgument("start_date", `must be less than ${MAX_DAYS} days before end_date`);
      const days = Array.from({ length: Math.round((end - start) / DAY_MS) + 1 }, (_, at) =>
        dayText(start + at * DAY_MS),
      );
      const provider = text(body, "provider_id");
      const found = (await totals.of(tenant, days, context.signal)).filter(
        ({ provider_id }) => provider === "" || provider_id === provider,
      );
      let micros = 0;
      let requests = 0;
      const records = found.map((one) => {
        micros += one.micros;
        requests += one.requests;
        return {
          day: one.day,
          provider_id: one.provider_id,
          requests: one.requests,
          by_status: one.by_status,
          latency_ms_avg: one.requests === 0 ? 0 : Math.round(one.latency_ms / one.requests),
          cost: dollarsOf(one.micros),
        };
      });
      return {
        tenant_id: tenant,
        start_date: dayText(start),
        end_date: dayText(end),
        records,
        total_requests: requests,
        total_cost: dollarsOf(micros),
      };
    }),

    endpoint(execSubject.cancel, async (body, context) => {
      const assignment_id = requiredText(body, "assignment_id");
      const tenant_id = tenantOf(body, context);
      const ids = { assignment_id, request_id: "", tenant_id };
      if (await metering.isSettled(ids, resultMsgId(ids))) return { ok: true, assignment_id, status: "finished" };
      await cancels.cancel(tenant_id, assignment_id, text(body, "reason"));
      return { ok: true, assignment_id, status: "cancelling" };
    }),
  ];
}

function endpoint(subject: string, answer: (body: JsonObject, context: CallContext) => Promise<JsonObject>): Endpoint {
  return requestEndpoint({ subject, dialect: "beamline", timeoutMs: 10_000 }, async (request, context) => {
    const body = request === "" ? {} : parseJson(request);
    if (!isObject(body)) throw invalidArgument("body", "must be a JSON object");
    return JSON.stringify(await answer(body, context));
  });
}

/** The header goes before the request, and a request may not name another tenant than its header does. */
function tenantOf(body: JsonObject, { headers }: CallContext): string {
  const named = headers[header.tenantId];
  const given = text(body, "tenant_id");
  if (named !== undefined && named !== "" && given !== "" && given !== named)
    throw new BeamlineError("denied", "tenant_id is not the caller's", { field: "tenant_id" });
  const tenant = named || given;
  if (tenant === "") throw invalidArgument("tenant_id", "is required");
  return tenant;
}

function dateOf(body: JsonObject, name: string): number | undefined {
  const given = text(body, name);
  if (given === "") return undefined;
  const at = /^\d{4}-\d{2}-\d{2}/.test(given) ? Date.parse(given.slice(0, 10)) : Number.NaN;
  // A day that its month has not is read as one of the next month.
  if (Number.isNaN(at) || dayText(at) !== given.slice(0, 10))
    throw invalidArgument(name, "must be a date like 2026-01-31");
  return at;
}

function dayStart(ms: number): number {
  return ms - (ms % DAY_MS);
}

function dayText(ms: number): string {
  return new Date(ms).toISOString().slice(0, 10);
}
