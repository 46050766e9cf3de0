/** Endpoints whose reply is kept as the text it is sent as: reading and writing it again would be most of what they cost. */
import { codecOf } from "../../contracts/codec.ts";
import { MemoryServiceDefinition, RecentEventsRequest } from "../../contracts/gen/aios/memory.ts";
import { routesOf } from "../../contracts/routes.ts";
import { parseJson } from "../../bus/call.ts";
import type { Endpoint } from "../../bus/endpoint.ts";
import type { Operational } from "./operational.ts";

const recentEvents = routesOf(MemoryServiceDefinition).getRecentEvents.subject;
const requests = codecOf(RecentEventsRequest);

/** The same endpoints; GetRecentEvents answers from the stored texts. Same result, same errors. */
export function withTexts(endpoints: readonly Endpoint[], operational: Operational): Endpoint[] {
  return endpoints.map((endpoint) => {
    if (endpoint.kind !== "request" || endpoint.subject !== recentEvents) return endpoint;
    const { subject, name, dialect, timeoutMs } = endpoint;
    return {
      kind: "request",
      subject,
      name,
      dialect,
      timeoutMs,
      answer: (text, { tenant }) =>
        operational.recentText(tenant, requests.fromJson(text === "" ? {} : parseJson(text))),
    };
  });
}
