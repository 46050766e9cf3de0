/**
 * Embeddings from an OpenAI-compatible endpoint (`POST <base>/embeddings`): batched, retried, bounded in time and in calls at once.
 *
 * Retried are a lost connection, 408, 429 and 5xx, with growing pauses and the endpoint's own `retry-after`; anything else is told at once.
 */
import { BeamlineError } from "../../../contracts/errors.ts";
import type { Clock } from "../../../runtime/clock.ts";
import type { Embedder } from "../ports.ts";
import { unit } from "../index/score.ts";

export interface OpenAiOptions {
  /** Base of the API, `https://api.openai.com/v1`. */
  readonly url: string;
  readonly key?: string | undefined;
  readonly model: string;
  /** Texts per request. Default 64. */
  readonly batch?: number;
  /** One request, milliseconds. Default 10 000. */
  readonly timeoutMs?: number;
  /** Tries per request. Default 3. */
  readonly tries?: number;
  readonly clock: Clock;
}

/** Characters of a text that are sent: about 8,000 tokens, what common models read. */
const READ_CHARS = 24_000;
const CONCURRENT = 4;
const LONGEST_PAUSE_MS = 5_000;

/** Asks the endpoint once for its dimensions. Throws `unavailable` when it cannot be reached, `failed_precondition` when it refuses. */
export async function openOpenAi(options: OpenAiOptions): Promise<Embedder> {
  const { batch = 64, model } = options;
  const [probe] = await request(options, ["dimensions"]);
  if (probe === undefined) throw refused(options, "it returned no vector");
  const dimensions = probe.length;
  return {
    model: `openai:${model}`,
    dimensions,
    async embed(texts, signal) {
      const batches: (readonly string[])[] = [];
      for (let at = 0; at < texts.length; at += batch) batches.push(texts.slice(at, at + batch));
      const vectors: Float32Array[][] = [];
      for (let at = 0; at < batches.length; at += CONCURRENT) {
        vectors.push(
          ...(await Promise.all(batches.slice(at, at + CONCURRENT).map((part) => request(options, part, signal)))),
        );
      }
      const all = vectors.flat();
      if (all.some((vector) => vector.length !== dimensions))
        throw refused(options, `its vectors are not of ${dimensions} dimensions any more`);
      return all;
    },
    close: () => Promise.resolve(),
  };
}

async function request(
  options: OpenAiOptions,
  texts: readonly string[],
  signal?: AbortSignal,
): Promise<Float32Array[]> {
  const { tries = 3, clock } = options;
  for (let attempt = 1; ; attempt++) {
    const outcome = await once(options, texts, signal);
    if (Array.isArray(outcome)) return outcome;
    if (attempt >= tries || !outcome.again) throw outcome.error;
    await clock.sleep(Math.min(LONGEST_PAUSE_MS, outcome.afterMs ?? 200 * 2 ** attempt), signal);
  }
}

interface Failure {
  readonly error: BeamlineError;
  readonly again: boolean;
  readonly afterMs?: number;
}

async function once(
  options: OpenAiOptions,
  texts: readonly string[],
  signal?: AbortSignal,
): Promise<Float32Array[] | Failure> {
  const { url, key, model, timeoutMs = 10_000 } = options;
  const limit = AbortSignal.timeout(timeoutMs);
  let response: Response;
  let body: unknown;
  try {
    response = await fetch(`${url.replace(/\/+$/, "")}/embeddings`, {
      method: "POST",
      headers: { "content-type": "application/json", ...(key !== undefined && { authorization: `Bearer ${key}` }) },
      body: JSON.stringify({
        model,
        input: texts.map((text) => text.slice(0, READ_CHARS).toWellFormed() || " "),
        encoding_format: "float",
      }),
      signal: signal === undefined ? limit : AbortSignal.any([limit, signal]),
    });
    body = await response.json().catch(() => undefined);
  } catch (cause) {
    if (signal?.reason instanceof BeamlineError) throw signal.reason; // a deadline that passed says so
    if (signal?.aborted === true) throw new BeamlineError("cancelled", "embedding was cancelled", { cause });
    const why = limit.aborted ? `does not answer within ${timeoutMs} ms` : "cannot be reached";
    return { error: new BeamlineError("unavailable", `the embedding endpoint ${why}`, { cause }), again: true };
  }
  if (!response.ok) {
    const again = response.status === 408 || response.status === 429 || response.status >= 500;
    const after = Number(response.headers.get("retry-after"));
    const error = again
      ? new BeamlineError("unavailable", `the embedding endpoint answers ${response.status}`)
      : refused(options, `it answers ${response.status}`);
    return { error, again, ...(after > 0 && { afterMs: after * 1000 }) };
  }
  const vectors = vectorsIn(body);
  if (vectors?.length !== texts.length)
    return { error: refused(options, "its answer has no vector for every text"), again: false };
  return vectors.map(unit);
}

/** The vectors of an answer in the order of the texts; undefined when it is not one, or a vector is not all numbers. */
function vectorsIn(body: unknown): number[][] | undefined {
  const data = (body as { data?: unknown } | null | undefined)?.data;
  if (!Array.isArray(data)) return undefined;
  const told = data.map((one: { index?: unknown; embedding?: unknown } | null, at) => ({
    at: typeof one?.index === "number" ? one.index : at,
    vector: one?.embedding,
  }));
  const vectors = told.toSorted((a, b) => a.at - b.at).map(({ vector }) => vector);
  return vectors.every(isVector) ? vectors : undefined;
}

function isVector(value: unknown): value is number[] {
  return Array.isArray(value) && value.length > 0 && value.every(Number.isFinite);
}

function refused({ model }: OpenAiOptions, why: string): BeamlineError {
  return new BeamlineError("failed_precondition", `the embedding endpoint cannot be used with model ${model}: ${why}`);
}
