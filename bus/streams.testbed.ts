/** Streams for tests. */
import type { StreamSpec } from "../contracts/streams.ts";

/** A stream that keeps everything and can do everything. */
export function testStream(name: string, subjects: readonly string[], more: Partial<StreamSpec> = {}): StreamSpec {
  return {
    name,
    purpose: "a test",
    subjects,
    retention: "limits",
    maxAgeMs: 0,
    maxBytes: -1,
    duplicateWindowMs: 120_000,
    schedules: true,
    atomic: true,
    ...more,
  };
}
