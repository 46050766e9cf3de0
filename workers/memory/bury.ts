/** A record that no projection can ever take, as a dead letter. */
import type { BeamlineError } from "../../contracts/errors.ts";
import { streams } from "../../contracts/streams.ts";
import type { Bus } from "../../bus/connect.ts";
import { deadLetter, reasonOf } from "../../bus/deadletter.ts";
import type { Entry } from "./log.ts";
import { RECENT } from "./record.ts";

/** Keeps the entry with the reason, once per projection. Throws as `deadLetter`; then it is tried again. */
export async function bury(
  bus: Bus,
  projection: string,
  entry: Entry,
  error: BeamlineError,
  nowMs: number,
): Promise<void> {
  const origin = {
    subject: entry.subject,
    headers: {},
    msgId: undefined,
    sequence: entry.seq,
    firstSeenMs: nowMs,
    attempt: 1,
  };
  const stream = entry.subject.startsWith(`${RECENT}.`) ? streams.memoryRecent.name : streams.memory.name;
  const durable = `memory-${projection.replaceAll(" ", "-")}`;
  await deadLetter(
    bus,
    { reason: reasonOf(error), error, origin, stream, durable, attempts: 1, timestamp: nowMs },
    Buffer.from(entry.text),
  );
}
