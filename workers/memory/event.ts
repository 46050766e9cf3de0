/**
 * Events as canonical JSON: the fields of the contract in their order, unset ones left out, so that equal events have equal texts.
 *
 * A plain request takes the short way, from its JSON to the canonical one without a message in between. Whatever is unusual is left to the codec, which also
 * knows how to refuse it.
 */
import { codecOf, type JsonObject } from "../../contracts/codec.ts";
import { Event } from "../../contracts/gen/aios/memory.ts";
import { invalidArgument } from "../../contracts/errors.ts";
import { requireJson } from "./check.ts";

const events = codecOf(Event);

/** Throws `invalid_argument` for `data_json` that is not JSON. */
export function canonicalEvent(event: Event): JsonObject {
  requireJson("data_json", event.data_json);
  return events.toJson(event);
}

/** The event a request's JSON stands for. Throws `invalid_argument` naming the field, as the codec does. */
export function canonicalRequest(json: unknown): JsonObject {
  return plain(json) ?? canonicalEvent(events.fromJson(json));
}

/** Undefined when a field is not of the type that it is written as. */
function plain(json: unknown): JsonObject | undefined {
  if (typeof json !== "object" || json === null || Array.isArray(json)) return undefined;
  const {
    id = "",
    timestamp = 0,
    category = "",
    source = "",
    data_json: data = "",
    critical = false,
  } = json as JsonObject;
  if (!isText(id) || !isText(category) || !isText(source) || !isText(data)) return undefined;
  if (!Number.isSafeInteger(timestamp) || typeof critical !== "boolean") return undefined;
  if (data !== "" && !isJson(data)) throw invalidArgument("data_json", "must be valid JSON");
  const event: JsonObject = {};
  if (id !== "") event["id"] = id;
  if (timestamp !== 0) event["timestamp"] = timestamp;
  if (category !== "") event["category"] = category;
  if (source !== "") event["source"] = source;
  if (data !== "") event["data_json"] = data;
  if (critical) event["critical"] = true;
  return event;
}

function isText(value: unknown): value is string {
  return typeof value === "string" && value.isWellFormed();
}

function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}
