/** A thread that does as it is told, for tests of what threads are told. */
import { answerCalls } from "../../workers/memory/index/thread.ts";

const noted: unknown[] = [];

answerCalls({
  /** Holds the thread until the first of these is not 0 any more. */
  hold: (until: Int32Array) => void Atomics.wait(until, 0, 0),
  note: (what: unknown) => void noted.push(what),
  noted: () => noted,
  die: () => process.exit(1),
});
