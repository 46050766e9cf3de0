/**
 * HTTP jobs, all through the SSRF guard (BeamLine, job types).
 *
 * `http` counts any answer as success and gives `{status, headers, body}`, the body parsed when it is JSON; a 5xx is tried again first.
 * `http.request` counts only 2xx as success and gives `{status_code, body, headers}`.
 * `graphql` gives the answer's JSON, its `errors` included.
 *
 * A method that is not idempotent (POST, PATCH) is sent once: after the request may have left, a broken connection is an unknown outcome.
 */
import type { JsonObject } from "../../../contracts/codec.ts";
import { BeamlineError } from "../../../contracts/errors.ts";
import type { Egress, EgressResponse } from "../../../runtime/egress.ts";
import { objectInput, textInput, type Job, type JobContext } from "../job.ts";
import { StepFailure, type Output } from "../step.ts";

const MIB = 1024 * 1024;
const repeatable = new Set(["GET", "HEAD", "OPTIONS", "PUT", "DELETE"]);
const methods = new Set([...repeatable, "POST", "PATCH"]);

interface Call {
  readonly url: string;
  readonly method: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string | undefined;
}

/** The three of them. */
export function httpJobs(egress: Egress): Job[] {
  const effect = (input: unknown): "repeatable" | "once" => (repeatable.has(methodOf(input)) ? "repeatable" : "once");
  return [
    {
      types: ["http"],
      effect,
      run: async (input, context) => anyStatus(await send(egress, callOf(input, true), context), context),
    },
    {
      types: ["http.request"],
      effect,
      run: async (input, context) => only2xx(await send(egress, callOf(input, false), context)),
    },
    {
      types: ["graphql"],
      effect: "repeatable",
      run: async (input, context) => ({
        payload: graphqlOutput(await send(egress, graphqlCall(input), context, true)),
      }),
    },
  ];
}

function methodOf(input: unknown): string {
  const method = typeof input === "object" && input !== null && "method" in input ? input.method : undefined;
  return typeof method === "string" ? method.toUpperCase() : "GET";
}

function callOf(input: unknown, lenient: boolean): Call {
  const given = objectInput(input);
  const url = textInput(given, "url");
  if (!lenient) textInput(given, "method");
  const method = methodOf(given);
  if (!methods.has(method))
    throw new StepFailure("INVALID_INPUT", `job.payload.method must be one of ${[...methods].join(", ")}`);
  const headers = headersIn(given);
  const { body } = given;
  if (body === undefined || body === null) return { url, method, headers, body: undefined };
  if (typeof body === "string") return { url, method, headers, body };
  const typed = Object.keys(headers).some((name) => name.toLowerCase() === "content-type");
  return {
    url,
    method,
    headers: typed ? headers : { ...headers, "content-type": "application/json" },
    body: JSON.stringify(body),
  };
}

/** An object, also written as its JSON text. */
function headersIn(given: JsonObject): Record<string, string> {
  let { headers = {} } = given;
  if (typeof headers === "string") {
    try {
      headers = JSON.parse(headers);
    } catch {
      throw new StepFailure("INVALID_INPUT", "job.payload.headers must be an object");
    }
  }
  if (typeof headers !== "object" || headers === null || Array.isArray(headers))
    throw new StepFailure("INVALID_INPUT", "job.payload.headers must be an object");
  return Object.fromEntries(Object.entries(headers).map(([name, value]) => [name, String(value)]));
}

function graphqlCall(input: unknown): Call {
  const given = objectInput(input);
  const { variables, operationName } = given;
  const body = JSON.stringify({ query: textInput(given, "query"), variables, operationName });
  return {
    url: textInput(given, "url"),
    method: "POST",
    headers: { ...headersIn(given), "content-type": "application/json" },
    body,
  };
}

async function send(
  egress: Egress,
  call: Call,
  { signal, deadline }: JobContext,
  mayRepeat = repeatable.has(call.method),
): Promise<EgressResponse> {
  try {
    return await egress.fetch(call.url, {
      method: call.method,
      headers: call.headers,
      ...(call.body !== undefined && { body: call.body }),
      timeoutMs: Math.max(1, deadline - Date.now()),
      signal,
      maxBytes: MIB,
    });
  } catch (thrown) {
    const error = BeamlineError.from(thrown);
    const refused = error.code === "invalid_argument" || error.code === "permission_denied" || neverSent(error);
    if (mayRepeat || refused) throw StepFailure.from(error);
    throw new StepFailure("NETWORK_ERROR", `${error.message}; whether the request took effect is unknown`, {
      outcomeUnknown: true,
      cause: error,
    });
  }
}

const beforeSending = new Set([
  "ECONNREFUSED",
  "ENOTFOUND",
  "EAI_AGAIN",
  "EHOSTUNREACH",
  "ENETUNREACH",
  "UND_ERR_CONNECT_TIMEOUT",
]);

/** Whether the connection was never made. */
function neverSent({ cause, message }: BeamlineError): boolean {
  if (message.endsWith("cannot be resolved") || message.endsWith("has no address")) return true;
  return cause instanceof Error && "code" in cause && beforeSending.has(String(cause.code));
}

/** A 5xx is worth another attempt; the last one stands as it is. */
function anyStatus(answer: EgressResponse, { attempt, assignment }: JobContext): Output {
  const { max_attempts } = assignment.options.retry;
  if (answer.status >= 500 && attempt < max_attempts && repeatable.has(methodOf(assignment.job.payload))) {
    throw new StepFailure("HTTP_ERROR", `the answer was HTTP ${answer.status}`);
  }
  return { payload: { status: answer.status, headers: answer.headers, body: parsed(answer), ...cut(answer) } };
}

function only2xx(answer: EgressResponse): Output {
  const { status } = answer;
  if (status < 200 || status > 299)
    throw new StepFailure("HTTP_ERROR", `the answer was HTTP ${status}`, { retryable: status >= 500 });
  return {
    payload: { status_code: status, body: answer.body.toString("utf8"), headers: answer.headers, ...cut(answer) },
  };
}

function cut({ truncated }: EgressResponse): { truncated?: true } {
  return truncated ? { truncated: true } : {};
}

function parsed({ body }: EgressResponse): unknown {
  const text = body.toString("utf8");
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

function graphqlOutput(answer: EgressResponse): unknown {
  const body = parsed(answer);
  if (typeof body === "object" && body !== null) return body;
  throw new StepFailure("HTTP_ERROR", `the answer was HTTP ${answer.status} and not JSON`, {
    retryable: answer.status >= 500,
  });
}
