/**
 * The control surface of a local router (BeamLine, control API): the subjects, what every request must carry, the optional token, the forms of replies.
 * Off unless switched on; its older names with it. What the operations mean the contract leaves open: docs/routing.md says what they mean here.
 *
 * D1 In this order: token, version, the four fields, the operation's own input. What is refused changed nothing.
 * D2 `{ok: true, result, context}`, or the error envelope of the decide subject.
 */
import { createHash, timingSafeEqual } from "node:crypto";
import { parseJson } from "../../../bus/call.ts";
import { requestEndpoint, type UnaryEndpoint } from "../../../bus/endpoint.ts";
import type { JsonObject } from "../../../contracts/codec.ts";
import { BeamlineError } from "../../../contracts/errors.ts";
import type { CallContext } from "../../../contracts/handlers.ts";
import { header, type Headers } from "../../../contracts/headers.ts";
import { isObject } from "../policies/fields.ts";
import { malformed, missing, refuse } from "../intake/refusal.ts";
import { contextOf, inEnvelope } from "../intake/replies.ts";

export const operations = [
  "project.open",
  "project.close",
  "index.start",
  "index.status",
  "index.cancel",
  "task.submit",
  "task.status",
  "task.cancel",
  "chat.start",
  "chat.send",
  "chat.cancel",
  "events.subscribe",
] as const;
export type OperationName = (typeof operations)[number];

/** A request past the door. */
export interface ControlRequest {
  readonly operation: OperationName;
  /** `beamline.router.control.v1`, or its older name. */
  readonly prefix: string;
  readonly tenant: string;
  readonly requestId: string;
  readonly traceId: string;
  readonly key: string;
  readonly body: Readonly<JsonObject>;
  readonly call: CallContext;
}

/** What answers each operation; total, so that a missing one does not compile. */
export type Operations = Readonly<Record<OperationName, (request: ControlRequest) => Promise<object>>>;

const prefixes = ["beamline.router.control.v1", "beamline.router.ide.v1"] as const;
const tenantPattern = /^[\w.:-]{1,256}$/;

export interface DoorOptions {
  /** What callers must bring, in the header `token` or `authorization` or the body's `token`; nothing when undefined. */
  readonly token: string | undefined;
  /** An id for the reply to a request that brings none. */
  readonly newId: () => string;
}

export function controlEndpoints(answers: Operations, { token, newId }: DoorOptions): UnaryEndpoint[] {
  return prefixes.flatMap((prefix) =>
    operations.map((operation): UnaryEndpoint => {
      const subject = `${prefix}.${operation}`;
      return requestEndpoint({ subject, dialect: "beamline", timeoutMs: 5_000 }, async (text, call) => {
        let body: JsonObject = {};
        try {
          const parsed = parseJson(text);
          if (!isObject(parsed)) throw malformed("body", "must be a JSON object");
          body = parsed;
          checkToken(token, call.headers, body);
          const request = { operation, prefix, ...fieldsOf(body, call.headers), body, call };
          const result = await answers[operation](request);
          return JSON.stringify({ ok: true, result, context: contextOf(request.requestId, request.traceId) });
        } catch (thrown) {
          throw inEnvelope(BeamlineError.from(thrown), words(body["request_id"]) || newId(), words(body["trace_id"]));
        }
      });
    }),
  );
}

function fieldsOf(
  body: JsonObject,
  headers: Headers,
): Pick<ControlRequest, "tenant" | "requestId" | "traceId" | "key"> {
  const { version } = body;
  if (version === undefined || version === null || version === "") throw missing("version", "VERSION_UNSUPPORTED");
  if (version !== "1")
    throw refuse("VERSION_UNSUPPORTED", "Unsupported version", "version", { supported_versions: ["1"] });
  const needed = (name: string): string => {
    const value = body[name];
    if (value === undefined || value === null || value === "") throw missing(name);
    if (typeof value !== "string") throw malformed(name, "must be a string");
    if (value.length > 256) throw malformed(name, "must have at most 256 characters");
    return value;
  };
  const tenant = needed("tenant_id");
  if (!tenantPattern.test(tenant))
    throw malformed("tenant_id", "must be 1 to 256 letters, digits, dots, colons, dashes or underscores");
  if ((headers[header.tenantId] || tenant) !== tenant)
    throw new BeamlineError("denied", "tenant_id is not the caller's", { field: "tenant_id" });
  return { tenant, requestId: needed("request_id"), traceId: needed("trace_id"), key: needed("idempotency_key") };
}

/** The header goes before the body. */
function checkToken(token: string | undefined, headers: Headers, body: JsonObject): void {
  if (token === undefined) return;
  const given = headers["token"] || headers["authorization"]?.replace(/^bearer\s+/i, "") || words(body["token"]);
  if (timingSafeEqual(digest(given), digest(token))) return;
  throw new BeamlineError("unauthorized", "missing or invalid token", { field: "token" });
}

function digest(text: string): Buffer {
  return createHash("sha256").update(text).digest();
}

function words(value: unknown): string {
  return typeof value === "string" ? value : "";
}
