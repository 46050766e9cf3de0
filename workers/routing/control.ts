/**
 * The control surface of a local router, as far as the contract specifies it (BeamLine, control API): the subjects, what every request must carry, the
 * optional token, the forms of replies. What the operations mean is not specified; a well-formed request is told so, with code `internal` and
 * details `{operation, implemented: false}`, instead of being left without an answer. Off unless switched on; its older names with it.
 */
import { createHash, timingSafeEqual } from "node:crypto";
import { parseJson } from "../../bus/call.ts";
import type { UnaryEndpoint } from "../../bus/endpoint.ts";
import type { JsonObject } from "../../contracts/codec.ts";
import { BeamlineError } from "../../contracts/errors.ts";
import type { Headers } from "../../contracts/headers.ts";
import { isObject } from "./fields.ts";
import { malformed, missing, refuse } from "./refusal.ts";
import { inEnvelope } from "./replies.ts";

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

const prefixes = ["beamline.router.control.v1", "beamline.router.ide.v1"] as const;
const needed = ["tenant_id", "request_id", "trace_id", "idempotency_key"] as const;

/** @param token what callers must bring, in the header `token` or `authorization` or the body's `token`; nothing when undefined */
export function controlEndpoints(token: string | undefined, newId: () => string): UnaryEndpoint[] {
  return prefixes.flatMap((prefix) =>
    operations.map((operation): UnaryEndpoint => {
      const subject = `${prefix}.${operation}`;
      return {
        kind: "request",
        subject,
        name: subject.replaceAll(".", "-"),
        dialect: "beamline",
        timeoutMs: 5_000,
        answer(text, { headers }) {
          let body: JsonObject = {};
          try {
            const parsed = parseJson(text);
            if (!isObject(parsed)) throw malformed("body", "must be a JSON object");
            body = parsed;
            checkToken(token, headers, body);
            checkFields(body);
            throw new BeamlineError("unimplemented", `${operation} is named by the contract, which leaves it open`, {
              details: { operation, implemented: false },
            });
          } catch (thrown) {
            throw inEnvelope(BeamlineError.from(thrown), words(body["request_id"]) || newId(), words(body["trace_id"]));
          }
        },
      };
    }),
  );
}

function checkFields(body: JsonObject): void {
  const { version } = body;
  if (version === undefined || version === null || version === "") throw missing("version", "VERSION_UNSUPPORTED");
  if (version !== "1")
    throw refuse("VERSION_UNSUPPORTED", "Unsupported version", "version", { supported_versions: ["1"] });
  for (const name of needed) {
    const value = body[name];
    if (value === undefined || value === null || value === "") throw missing(name);
    if (typeof value !== "string") throw malformed(name, "must be a string");
  }
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
