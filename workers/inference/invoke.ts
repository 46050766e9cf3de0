/**
 * `beamline.provider.v1.Provider` (BeamLine, provider).
 *
 * V1 What is wrong with the request is an error of the RPC; what goes wrong at the provider is a response with status `error` or `timeout`.
 * V2 The caller's deadline is the provider's, less the time an answer needs to get back.
 * V3 A caller that names an idempotency key gets the same answer again, without the provider being asked. What is asked again while this worker still
 *    waits for the provider, as by a caller whose connection was lost, waits for that answer.
 */
import { hash } from "node:crypto";
import { BeamlineError, invalidArgument } from "../../contracts/errors.ts";
import { dollarsOf } from "../../contracts/execution/usage.ts";
import type { ProviderDefinition, ProviderRequest } from "../../contracts/gen/beamline/provider/v1/provider.ts";
import type { CallContext, Handlers } from "../../contracts/handlers.ts";
import { header } from "../../contracts/headers.ts";
import { orAborted } from "../../runtime/aborted.ts";
import type { executionMetrics } from "../../runtime/beamline.metrics.ts";
import type { Clock } from "../../runtime/clock.ts";
import type { Logger } from "../../runtime/log.ts";
import type { Metrics } from "../../runtime/metrics.ts";
import { SpanKind, withSpan } from "../../runtime/trace.ts";
import { inWholeCharacters } from "./pieces.ts";
import { costOf, priceOf, splitTokens, type PriceTable } from "./prices.ts";
import { ProviderFailure, type Answer, type Provider, type Question } from "./provider.ts";
import type { Providers } from "./providers.ts";
import { questionOf } from "./question.ts";
import type { Replies } from "./replies.redis.ts";

export interface InvokePorts {
  readonly providers: Providers;
  readonly prices: PriceTable;
  readonly replies: Replies;
  readonly metrics: Metrics<typeof executionMetrics>;
  readonly clock: Clock;
  readonly log: Logger;
}

/** Kept back from a deadline for the way home, milliseconds. */
const WAY_HOME_MS = 150;

interface Asked {
  readonly request: ProviderRequest;
  readonly tenant: string;
  readonly provider: Provider;
  readonly question: Question;
}

interface Reply {
  readonly request_id: string;
  readonly status: "success" | "error" | "timeout";
  readonly body?: Buffer;
  readonly metadata: Record<string, string>;
  readonly latency_ms: bigint;
  readonly cost: number;
  readonly error_code?: string;
  readonly error_message?: string;
  readonly timestamp_ms: bigint;
}

export function providerHandlers(ports: InvokePorts): Handlers<typeof ProviderDefinition> {
  const { replies, clock } = ports;
  /** What calls with a key will have kept, by tenant and key; undefined when nothing. */
  const underWay = new Map<string, Promise<string | undefined>>();
  const spanned = (asked: Asked, context: CallContext): Promise<Reply> =>
    withSpan(
      "beamline.provider.invoke",
      context.traceparent,
      spanOf(asked),
      () => invoke(ports, asked, context),
      SpanKind.CLIENT,
    );
  return {
    async invoke(request, context) {
      const asked = read(request, context, ports.providers);
      const key = context.headers[header.idempotencyKey] ?? "";
      if (key === "") return spanned(asked, context);
      const { tenant } = asked;
      const digest = digestOf(request);
      const place = JSON.stringify([tenant, key]);
      for (let other; (other = underWay.get(place)) !== undefined;) {
        const kept = await orAborted(context.signal, other); // V3
        if (kept !== undefined) return replayed(kept, digest);
      }
      const { promise, resolve } = Promise.withResolvers<string | undefined>();
      underWay.set(place, promise);
      let kept: string | undefined;
      try {
        kept = await replies.find(tenant, key);
        if (kept !== undefined) return replayed(kept, digest);
        const reply = await spanned(asked, context);
        if (reply.status === "success") await replies.keep(tenant, key, (kept = keptForm(reply, digest)));
        return reply;
      } finally {
        underWay.delete(place);
        resolve(kept);
      }
    },

    async *invokeStream(request, context) {
      const asked = read(request, context, ports.providers);
      const started = clock.monotonic();
      const { signal, isLate } = limits(context, clock.now());
      const request_id = request.message_id;
      let end: Omit<Answer, "text"> | undefined;
      try {
        for await (const piece of inWholeCharacters(asked.provider.stream(asked.question, signal))) {
          if ("end" in piece) end = piece.end;
          else yield { request_id, data: Buffer.from(piece.text, "utf8") };
        }
        if (end === undefined) throw new ProviderFailure("NETWORK_ERROR", "the answer broke off");
      } catch (thrown) {
        const { status, code, message } = failureOf(thrown, isLate(), context);
        record(ports, asked, status, clock.monotonic() - started, 0);
        yield { request_id, done: true, metadata: { status, error_code: code, error_message: message } };
        return;
      }
      const latency = clock.monotonic() - started;
      const micros = costOf(priceOf(ports.prices, asked.provider.family, end.model), end.tokens);
      record(ports, asked, "success", latency, micros);
      const metadata = {
        status: "success",
        latency_ms: String(Math.round(latency)),
        cost: String(dollarsOf(micros)),
        ...labelsOf(ports, asked, end, micros),
      };
      yield { request_id, done: true, metadata };
    },
  };
}

function read(request: ProviderRequest, { headers }: CallContext, providers: Providers): Asked {
  if (request.provider_id === "") throw invalidArgument("provider_id", "is required");
  if (request.message_id === "") throw invalidArgument("message_id", "is required");
  const tenant = headers[header.tenantId] || request.tenant_id;
  if (tenant === "") throw invalidArgument("tenant_id", "is required");
  const { provider, model } = providers.resolve(request.provider_id, request.parameters["provider_version"]);
  return { request, tenant, provider, question: { ...questionOf(request, model), tenant } };
}

function spanOf({ request, tenant }: Asked): () => Record<string, string> {
  return () => ({ tenant_id: tenant, provider_id: request.provider_id });
}

/** V2. */
function limits({ deadline, signal }: CallContext, now: number): { signal: AbortSignal; isLate: () => boolean } {
  const time = AbortSignal.timeout(Math.max(1, Math.min(deadline - now - WAY_HOME_MS, 2 ** 31 - 1)));
  return { signal: AbortSignal.any([time, signal]), isLate: () => time.aborted };
}

async function invoke(ports: InvokePorts, asked: Asked, context: CallContext): Promise<Reply> {
  const { clock, prices } = ports;
  const started = clock.monotonic();
  const { signal, isLate } = limits(context, clock.now());
  const common = (): Pick<Reply, "request_id" | "latency_ms" | "timestamp_ms"> => ({
    request_id: asked.request.message_id,
    latency_ms: BigInt(Math.round(clock.monotonic() - started)),
    timestamp_ms: BigInt(clock.now()),
  });
  try {
    const answer = await asked.provider.ask(asked.question, signal);
    const micros = costOf(priceOf(prices, asked.provider.family, answer.model), answer.tokens);
    record(ports, asked, "success", clock.monotonic() - started, micros);
    return {
      ...common(),
      status: "success",
      body: bodyOf(answer),
      metadata: labelsOf(ports, asked, answer, micros),
      cost: dollarsOf(micros),
    };
  } catch (thrown) {
    const failure = failureOf(thrown, isLate(), context);
    record(ports, asked, failure.status, clock.monotonic() - started, 0);
    if (failure.code === "INTERNAL_ERROR")
      ports.log.error("a provider adapter failed", { provider_id: asked.request.provider_id, error: thrown });
    return {
      ...common(),
      status: failure.status,
      metadata: { provider: asked.provider.family, retryable: String(failure.retryable) },
      cost: 0,
      error_code: failure.code,
      error_message: failure.message,
    };
  }
}

interface Failure {
  readonly status: "error" | "timeout";
  readonly code: string;
  readonly message: string;
  readonly retryable: boolean;
}

/** V1. Throws when the caller itself gave up. */
function failureOf(thrown: unknown, late: boolean, { signal }: CallContext): Failure {
  if (thrown instanceof ProviderFailure) {
    return {
      status: thrown.timeout ? "timeout" : "error",
      code: thrown.code,
      message: thrown.message,
      retryable: thrown.retryable,
    };
  }
  if (late)
    return {
      status: "timeout",
      code: "CONNECTION_TIMEOUT",
      message: "the provider did not answer before the deadline",
      retryable: true,
    };
  if (signal.aborted) throw BeamlineError.from(signal.reason);
  return { status: "error", code: "INTERNAL_ERROR", message: "the provider's adapter failed", retryable: true };
}

/** `{text, role, model, finish_reason, usage}`, or `{embeddings, model, usage}`. */
function bodyOf({ text, embeddings, model, finish, tokens }: Answer): Buffer {
  const { input, output } = splitTokens(tokens);
  const usage = { prompt_tokens: input, completion_tokens: output };
  const body =
    embeddings === undefined
      ? { text, role: "assistant", model, finish_reason: finish, usage }
      : { embeddings, model, usage };
  return Buffer.from(JSON.stringify(body), "utf8");
}

function labelsOf(
  { prices }: InvokePorts,
  { provider }: Asked,
  { model, finish, tokens, labels }: Omit<Answer, "text">,
  micros: number,
): Record<string, string> {
  const { input, output } = splitTokens(tokens);
  const priced = priceOf(prices, provider.family, model) !== undefined;
  return {
    ...labels,
    provider: provider.family,
    model,
    finish_reason: finish,
    input_tokens: String(input),
    output_tokens: String(output),
    cost_micros: String(micros),
    price_version: priced ? prices.version : "none",
  };
}

function record(
  { metrics }: InvokePorts,
  { provider: { family: provider } }: Asked,
  status: string,
  ms: number,
  micros: number,
): void {
  metrics.beamline_provider_invocations_total.with({ provider, status }).add();
  metrics.beamline_provider_latency_seconds.with({ provider }).record(ms / 1_000);
  if (micros > 0) metrics.beamline_provider_cost_total.with({ provider }).add(dollarsOf(micros));
}

function digestOf({ provider_id, body, parameters }: ProviderRequest): string {
  const settings = Object.entries(parameters).sort(([a], [b]) => (a < b ? -1 : 1));
  return hash("sha256", JSON.stringify([provider_id, body.toString("utf8"), settings]), "hex");
}

function keptForm(reply: Reply, digest: string): string {
  const { body, latency_ms, timestamp_ms, ...rest } = reply;
  return JSON.stringify({
    digest,
    ...rest,
    body: body?.toString("utf8") ?? "",
    latency_ms: Number(latency_ms),
    timestamp_ms: Number(timestamp_ms),
  });
}

function replayed(kept: string, digest: string): Reply {
  const {
    digest: first,
    body,
    latency_ms,
    timestamp_ms,
    ...rest
  } = JSON.parse(kept) as Omit<Reply, "body" | "latency_ms" | "timestamp_ms"> & {
    digest: string;
    body: string;
    latency_ms: number;
    timestamp_ms: number;
  };
  if (first !== digest) throw invalidArgument("idempotency_key", "was used with another request");
  return {
    ...rest,
    metadata: { ...rest.metadata, replayed: "true" },
    body: Buffer.from(body, "utf8"),
    latency_ms: BigInt(latency_ms),
    timestamp_ms: BigInt(timestamp_ms),
  };
}
