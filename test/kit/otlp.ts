/** What a collector is sent: an ExportTraceServiceRequest of OpenTelemetry's protocol, as protobuf or as JSON. */
import { fieldsOf } from "./wire.ts";

export interface Span {
  /** `service.name` of its resource. */
  readonly service: string;
  readonly name: string;
  /** Ids in hexadecimal; the parent's is empty when there is none. */
  readonly traceId: string;
  readonly spanId: string;
  readonly parentSpanId: string;
}

/** All spans of a request's body. `type` is its `content-type`. */
export function spansIn(body: Buffer, type: string): Span[] {
  return type.startsWith("application/json") ? spansInJson(body.toString()) : spansInProtobuf(body);
}

/** Field numbers of opentelemetry-proto's `trace/v1/trace.proto`, `resource/v1/resource.proto` and `common/v1/common.proto`. */
function spansInProtobuf(body: Buffer): Span[] {
  return valuesOf(body, 1).flatMap((resourceSpans) => {
    const attributes = valuesOf(valuesOf(resourceSpans, 1)[0], 1);
    const named = attributes.find((attribute) => textOf(valuesOf(attribute, 1)[0]) === "service.name");
    const service = textOf(valuesOf(valuesOf(named, 2)[0], 1)[0]);
    return valuesOf(resourceSpans, 2)
      .flatMap((scopeSpans) => valuesOf(scopeSpans, 2))
      .map((span) => ({
        service,
        name: textOf(valuesOf(span, 5)[0]),
        traceId: hexOf(valuesOf(span, 1)[0]),
        spanId: hexOf(valuesOf(span, 2)[0]),
        parentSpanId: hexOf(valuesOf(span, 4)[0]),
      }));
  });
}

const none = new Uint8Array();
const textOf = (bytes: Uint8Array = none): string => Buffer.from(bytes).toString("utf8");
const hexOf = (bytes: Uint8Array = none): string => Buffer.from(bytes).toString("hex");

/** The values of one field. */
function valuesOf(message: Uint8Array = none, wanted: number): Buffer[] {
  return fieldsOf(message).flatMap(([field, value]) => (field === wanted ? [value] : []));
}

interface Export {
  readonly resourceSpans?: readonly {
    readonly resource: { readonly attributes: readonly { key: string; value: { stringValue?: string } }[] };
    readonly scopeSpans: readonly {
      readonly spans: readonly (Pick<Span, "name" | "traceId" | "spanId"> & Partial<Pick<Span, "parentSpanId">>)[];
    }[];
  }[];
}

function spansInJson(text: string): Span[] {
  const { resourceSpans = [] } = JSON.parse(text) as Export;
  return resourceSpans.flatMap(({ resource, scopeSpans }) => {
    const service = resource.attributes.find(({ key }) => key === "service.name")?.value.stringValue ?? "";
    return scopeSpans.flatMap(({ spans }) =>
      spans.map(({ name, traceId, spanId, parentSpanId = "" }) => ({ service, name, traceId, spanId, parentSpanId })),
    );
  });
}
