/** JSON Schemas that workflows bring: of run options, of channels, of answers. */
import { Ajv2020, type ErrorObject, type ValidateFunction } from "ajv/dist/2020.js";
import type { Json } from "../../../contracts/openwop/json.ts";
import { invalid } from "../body.ts";
import { bounded } from "./bounded.ts";

const MAX_KNOWN = 1_000;

const ajv = new Ajv2020({ strict: false, allErrors: false, addUsedSchema: false });
const schemas = new WeakMap<object, ValidateFunction>();
/** By their text: every run has a copy of its own. */
const known = new Map<string, ValidateFunction>();

/** Compiles a JSON Schema a workflow brought. Throws `validation_error` when it is none. */
export function schemaOf(schema: Json, field: string): ValidateFunction {
  let validate = schemas.get(schema);
  if (validate === undefined) {
    const text = JSON.stringify(schema);
    validate = known.get(text) ?? compiled(schema, field);
    if (known.size >= MAX_KNOWN) known.clear();
    known.set(text, validate);
    schemas.set(schema, validate);
  }
  return validate;
}

/** Compiles a schema of our own, however long that takes. */
export function ownSchema(schema: Json): ValidateFunction {
  return ajv.compile(schema);
}

function compiled(schema: Json, field: string): ValidateFunction {
  const { $id: _id, ...anonymous } = schema;
  try {
    return bounded(field, () => ajv.compile(anonymous));
  } catch (cause) {
    throw invalid(field, `is not a JSON Schema: ${cause instanceof Error ? cause.message : String(cause)}`);
  } finally {
    // Else it would be kept for ever, under this very object.
    ajv.removeSchema(anonymous);
  }
}

/** What is wrong with a value first; undefined when it conforms. Throws `validation_error` when finding out takes too long. */
export function faultIn(schema: Json, value: unknown, field: string): Partial<ErrorObject> | undefined {
  const validate = schemaOf(schema, field);
  return bounded(field, () => validate(value)) ? undefined : (validate.errors?.[0] ?? {});
}

/** Checks a value against a schema. Throws `validation_error` naming the member. */
export function conform(schema: Json, value: unknown, field: string): void {
  const fault = faultIn(schema, value, field);
  if (fault === undefined) return;
  const path = (fault.instancePath ?? "").replaceAll("/", ".");
  const extra: unknown = fault.params?.["additionalProperty"];
  throw invalid(
    `${field}${path}`,
    `${fault.message ?? "does not conform"}${typeof extra === "string" ? `: ${extra}` : ""}`,
    { schemaPath: fault.schemaPath },
  );
}
