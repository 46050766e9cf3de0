/** Reading discovery as the conformance suite does: which profiles a document claims (OpenWOP, profile ladder). */
import { isObject, objectOr, type Json } from "../../contracts/openwop/json.ts";

const list = (value: unknown): readonly unknown[] => (Array.isArray(value) ? (value as unknown[]) : []);
const supported = (document: Json, family: string): boolean => objectOr(document[family])["supported"] === true;

const isCount = (value: unknown): boolean => typeof value === "number" && Number.isInteger(value) && value >= 0;

/** The four required fields as they must be, of major version 1. */
function isCore({ protocolVersion, supportedEnvelopes, schemaVersions, limits }: Json): boolean {
  return (
    typeof protocolVersion === "string" &&
    /^1\.(0|[1-9]\d*)$/.test(protocolVersion) &&
    Array.isArray(supportedEnvelopes) &&
    supportedEnvelopes.every((one) => typeof one === "string") &&
    isObject(schemaVersions) &&
    Object.values(schemaVersions).every(isCount) &&
    isObject(limits) &&
    ["clarificationRounds", "schemaRounds", "envelopesPerTurn"].every((name) => isCount(limits[name]))
  );
}

const hasRest = ({ supportedTransports }: Json): boolean =>
  supportedTransports === undefined || list(supportedTransports).includes("rest");
const asks = ({ supportedEnvelopes }: Json): boolean => list(supportedEnvelopes).includes("clarification.request");

/** Those that are a matter of discovery alone; each is claimed by core hosts only. */
const predicates: Readonly<Record<string, (document: Json) => boolean>> = {
  "openwop-core": () => true,
  "openwop-interrupts": asks,
  "openwop-stream-sse": hasRest,
  "openwop-stream-poll": hasRest,
  "openwop-core-standard": (document) => asks(document) && hasRest(document),
  "openwop-fixtures": ({ fixtures }) => list(fixtures).length > 0,
  "openwop-replay-fork": (document) =>
    supported(document, "replay") && list(objectOr(document["replay"])["modes"]).length > 0,
  "openwop-secrets": (document) =>
    supported(document, "secrets") && list(objectOr(document["secrets"])["scopes"]).includes("user"),
  "openwop-discovery-auth-scoped": ({ discovery }) => objectOr(objectOr(discovery)["authScoped"])["supported"] === true,
  "openwop-production": (document) => supported(document, "production"),
};

export function profilesOf(document: unknown): string[] {
  if (!isObject(document) || !isCore(document)) return [];
  return Object.keys(predicates).filter((name) => predicates[name]?.(document));
}
