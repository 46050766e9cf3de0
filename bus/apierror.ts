/** What JetStream refuses, as our own errors: translated once, at the door. */
import { JetStreamApiError } from "@nats-io/jetstream";
import { BeamlineError, type Code, type ErrorExtras } from "../contracts/errors.ts";

/** Error numbers of the server that the code acts on (nats-server `errors.json`). */
export const apiCode = {
  noPeers: 10005,
  consumerNotFound: 10014,
  messageNotFound: 10037,
  streamConfigInvalid: 10052,
  streamNameInUse: 10058,
  streamNotFound: 10059,
  subjectsOverlap: 10065,
  wrongLastMsgId: 10070,
  wrongLastSequence: 10071,
  replicasNotSupported: 10074,
  wrongLastSequenceUnknown: 10164,
  batchIncomplete: 10176,
  batchHasDuplicate: 10201,
} as const;

const meanings: Readonly<Record<number, Code>> = {
  [apiCode.noPeers]: "unavailable", // no servers to place copies on now
  [apiCode.consumerNotFound]: "not_found",
  [apiCode.messageNotFound]: "not_found",
  [apiCode.streamNotFound]: "not_found",
  [apiCode.streamConfigInvalid]: "failed_precondition",
  [apiCode.streamNameInUse]: "failed_precondition",
  [apiCode.subjectsOverlap]: "failed_precondition",
  [apiCode.replicasNotSupported]: "failed_precondition",
  [apiCode.wrongLastMsgId]: "aborted",
  [apiCode.wrongLastSequence]: "aborted",
  [apiCode.wrongLastSequenceUnknown]: "aborted",
  10060: "failed_precondition", // expected stream does not match
  10054: "message_too_large", // beyond the stream's max_msg_size
  10077: "resource_exhausted", // beyond the stream's limits, which discards new messages
  10023: "resource_exhausted",
  10028: "resource_exhausted",
  10047: "resource_exhausted",
  10210: "resource_exhausted", // too many batches under way
  10165: "invalid_argument", // per-message TTL
  10166: "failed_precondition", // TTL is off
  10174: "failed_precondition", // batches are off
  10188: "failed_precondition", // schedules are off
  10189: "invalid_argument", // schedule pattern
  10190: "invalid_argument", // schedule target
  10191: "invalid_argument", // schedule TTL
  10223: "invalid_argument", // schedule time zone
  10199: "invalid_argument", // batch too large
  [apiCode.batchIncomplete]: "unavailable",
  [apiCode.batchHasDuplicate]: "already_exists",
};

const byStatus: Readonly<Record<number, Code>> = {
  404: "not_found",
  408: "unavailable",
  429: "resource_exhausted",
  503: "unavailable",
};

/** The error for a refusal of the server: its error number, its status, its words. */
export function refusal(
  what: string,
  errCode: number,
  status: number,
  description: string,
  extras: ErrorExtras = {},
): BeamlineError {
  const code = meanings[errCode] ?? byStatus[status] ?? "internal";
  const details = { ...extras.details, jetstream_code: errCode };
  return new BeamlineError(code, `${what}: ${description}`, { ...extras, details });
}

/** The server's error number behind a thrown thing, 0 when there is none. */
export function apiCodeOf(thrown: unknown): number {
  return thrown instanceof JetStreamApiError ? thrown.code : 0;
}

const away = new Set([
  "TimeoutError",
  "RequestError",
  "ClosedConnectionError",
  "DrainingConnectionError",
  "ConnectionError",
  "JetStreamNotEnabled",
  "NoResponders",
]);

/**
 * Whatever the client library threw, as a `BeamlineError`. `what` says what was tried. A server that does not answer is `unavailable`;
 * a user without the right is `permission_denied`.
 */
export function fromJetStream(thrown: unknown, what: string): BeamlineError {
  if (thrown instanceof BeamlineError) return thrown;
  if (thrown instanceof JetStreamApiError)
    return refusal(what, thrown.code, thrown.status, thrown.message, { cause: thrown });
  if (!(thrown instanceof Error)) return BeamlineError.from(thrown);
  if (isForbidden(thrown) || isForbidden(thrown.cause)) return forbidden(what, thrown);
  if (away.has(thrown.name) || thrown.message === "no responders")
    return new BeamlineError("unavailable", `${what}: JetStream does not answer`, { cause: thrown });
  return BeamlineError.from(thrown);
}

function isForbidden(thrown: unknown): boolean {
  return thrown instanceof Error && thrown.name === "PermissionViolationError";
}

/** The user of this connection has no right to it. */
export function forbidden(what: string, cause: unknown): BeamlineError {
  return new BeamlineError("permission_denied", `${what}: the bus user may not do that`, { cause });
}

/** Runs a call of the client library, its errors translated. */
export async function asking<T>(what: string, call: () => Promise<T>): Promise<T> {
  try {
    return await call();
  } catch (thrown) {
    throw fromJetStream(thrown, what);
  }
}
