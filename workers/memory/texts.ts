/** Endpoints that go from text to text: what is kept is the contract's JSON already, and a message made in between would be most of what they cost. */
import { codecOf } from "../../contracts/codec.ts";
import { MemoryServiceDefinition, RecentEventsRequest } from "../../contracts/gen/aios/memory.ts";
import { routesOf } from "../../contracts/routes.ts";
import { parseRequest } from "../../bus/call.ts";
import type { Answer, Endpoint } from "../../bus/endpoint.ts";
import { canonicalKind } from "./canonical.ts";
import { canonicalRequest } from "./event.ts";
import type { Operational } from "./operational.ts";

const routes = routesOf(MemoryServiceDefinition);
const requests = codecOf(RecentEventsRequest);

/** The same endpoints; PushEvent and GetRecentEvents answer by themselves. Same results, same errors. */
export function withTexts(endpoints: readonly Endpoint[], operational: Operational): Endpoint[] {
  const answers = new Map<string, Answer>([
    [
      routes.pushEvent.subject,
      (text, { tenant }) => {
        const kind = canonicalKind(text);
        return kind === undefined
          ? operational.pushCanonical(tenant, canonicalRequest(parseRequest(text)))
          : operational.pushEntry(tenant, text, kind === "critical");
      },
    ],
    [
      routes.getRecentEvents.subject,
      (text, { tenant }) => operational.recentText(tenant, requests.fromJson(parseRequest(text))),
    ],
  ]);
  return endpoints.map((endpoint) => {
    const answer = answers.get(endpoint.subject);
    return endpoint.kind === "request" && answer !== undefined ? { ...endpoint, answer } : endpoint;
  });
}
