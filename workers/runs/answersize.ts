/** Answers that are larger than a message can be: said in so many words, before the bus says it of a message nobody knows. */
import { BeamlineError } from "../../contracts/errors.ts";

/** What surrounds an answer on its way: the envelope and the headers, bytes. */
const ROOM = 16 * 1024;

/** The largest answer the bus takes, bytes. */
export function largestAnswer(bus: { readonly maxPayload: number }): number {
  return bus.maxPayload - ROOM;
}

/** Throws `message_too_large` for more bytes than `maxBytes`, with `details {reason: "answer_too_large", what, bytes, maxBytes}`. */
export function expectFits(what: string, bytes: number, maxBytes: number): void {
  if (bytes <= maxBytes) return;
  throw new BeamlineError(
    "message_too_large",
    `the ${what} has ${bytes} bytes, and an answer at most ${maxBytes}; the events of the run can be read one by one`,
    { details: { reason: "answer_too_large", what, bytes, maxBytes } },
  );
}

/** Bytes of a value as JSON. */
export function bytesOf(value: unknown): number {
  return Buffer.byteLength(JSON.stringify(value));
}
