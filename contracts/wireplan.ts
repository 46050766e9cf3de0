/** What a message looks like on the wire, prepared for the one-pass transcoder. Only plain messages have a plan. */
import { ScalarType, type DescField, type DescMessage } from "@bufbuild/protobuf";
import { isTextBytes } from "./codec.ts";

export type Kind = "string" | "text" | "base64" | "bool" | "double" | "int32" | "int64" | "message";

export interface FieldPlan {
  readonly index: number;
  readonly name: string;
  /** `"name":` as it stands in the text. */
  readonly key: string;
  readonly tag: number;
  readonly shape: "one" | "list" | "map";
  readonly kind: Kind;
  /** Of the values in the entries of a map. */
  readonly valueTag: number;
  /** Of a message field, or of a map's message values. */
  readonly message: Plan | undefined;
}

export interface Plan {
  readonly fields: readonly FieldPlan[];
  /** A place for the text of each field. */
  readonly empty: readonly (string | undefined)[];
  readonly byTag: readonly (FieldPlan | undefined)[];
}

export const VARINT = 0;
export const FIXED64 = 1;
export const LENGTH = 2;
export const FIXED32 = 5;

const kinds: Partial<Record<ScalarType, readonly [Kind, number]>> = {
  [ScalarType.STRING]: ["string", LENGTH],
  [ScalarType.BOOL]: ["bool", VARINT],
  [ScalarType.DOUBLE]: ["double", FIXED64],
  [ScalarType.INT32]: ["int32", VARINT],
  [ScalarType.INT64]: ["int64", VARINT],
};

const plans = new Map<string, Plan | undefined>();

/** The plan of a message, or undefined when some field of it is not plain. */
export function planOf(descriptor: DescMessage): Plan | undefined {
  if (plans.has(descriptor.typeName)) return plans.get(descriptor.typeName);
  plans.set(descriptor.typeName, undefined); // a message within itself is not plain
  const fields = descriptor.fields.toSorted((a, b) => a.number - b.number).map(fieldPlan);
  const plain = !descriptor.typeName.startsWith("google.protobuf.") && fields.every((field) => field !== undefined);
  const plan = plain ? { fields, empty: fields.map(() => undefined), byTag: byTag(fields) } : undefined;
  plans.set(descriptor.typeName, plan);
  return plan;
}

function fieldPlan(field: DescField, index: number): FieldPlan | undefined {
  const shape = field.fieldKind === "list" ? "list" : field.fieldKind === "map" ? "map" : "one";
  const named = {
    index,
    name: field.name,
    key: `${JSON.stringify(field.name)}:`,
    shape,
    valueTag: (2 << 3) | LENGTH,
  } as const;
  if (shape === "map" && field.fieldKind === "map" && field.mapKey !== ScalarType.STRING) return undefined;
  if (field.message !== undefined) {
    const message = planOf(field.message);
    return message === undefined
      ? undefined
      : { ...named, kind: "message", message, tag: (field.number << 3) | LENGTH };
  }
  if (field.scalar === undefined) return undefined;
  if (field.scalar === ScalarType.BYTES) {
    return {
      ...named,
      kind: isTextBytes(field) ? "text" : "base64",
      message: undefined,
      tag: (field.number << 3) | LENGTH,
    };
  }
  const known = kinds[field.scalar];
  if (known === undefined) return undefined;
  const [kind, wire] = known;
  if (shape === "list" && wire !== LENGTH) return undefined; // packed
  return {
    ...named,
    kind,
    message: undefined,
    tag: (field.number << 3) | (shape === "map" ? LENGTH : wire),
    valueTag: (2 << 3) | wire,
  };
}

function byTag(fields: readonly FieldPlan[]): (FieldPlan | undefined)[] {
  const table: (FieldPlan | undefined)[] = [];
  for (const field of fields) table[field.tag] = field;
  return table;
}
