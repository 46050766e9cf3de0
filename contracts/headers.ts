/**
 * Header names on the bus. The contracts fix the lower-case ones; the `Beamline-` ones are ours. A header beats the same
 * value in a payload (BeamLine, subjects and headers).
 */
export const header = {
  /** W3C trace context: `00-<32 hex>-<16 hex>-<2 hex>`. */
  traceparent: "traceparent",
  tracestate: "tracestate",
  traceId: "trace_id",
  spanId: "span_id",
  tenantId: "tenant_id",
  /** Contract version, always `1` today. */
  version: "version",
  correlationId: "correlation_id",
  /** RouterAdmin key, forwarded from gRPC metadata. */
  apiKey: "x-api-key",
  idempotencyKey: "idempotency_key",
  /** How long the key of a decide request is remembered, milliseconds, when it is less than the router's hour. Ours, from its own gateway. */
  idempotencyTtl: "idempotency_ttl_ms",
  /** Task on whose behalf a call is made; becomes provenance where something is remembered. */
  taskId: "task_id",
  /** Absolute deadline in epoch milliseconds. */
  deadline: "Beamline-Deadline",
  /** Who calls: `local` for the loopback dev principal, else the key's or token's subject. */
  principal: "Beamline-Principal",
  /** Space-separated scopes of the caller. */
  scopes: "Beamline-Scopes",
  /** Server streams: `open`, `data`, `beat`, `end`, `error`, `credit`, `cancel`. See bus/stream. */
  stream: "Beamline-Stream",
  /** Message id that makes a JetStream publish idempotent inside the stream's duplicate window. */
  msgId: "Nats-Msg-Id",
  /** Present exactly when a reply is an error: its text and its HTTP status (NATS ADR-32). */
  serviceError: "Nats-Service-Error",
  serviceErrorCode: "Nats-Service-Error-Code",
  /** On dead letters (BeamLine, DLQ). */
  dlqReason: "x-dlq-reason",
  originalMsgId: "x-original-msg-id",
} as const;

/** Headers as plain data: one value per name. */
export type Headers = Readonly<Record<string, string>>;
