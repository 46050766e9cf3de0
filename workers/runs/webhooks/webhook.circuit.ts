/** When a webhook is tried: after failures in a row it rests, then one delivery tries it; after too many in a week it has failed. */

/** What a subscription knows of its receiver. */
export interface Circuit {
  readonly state: "active" | "failed";
  /** Failures in a row. */
  readonly failures: number;
  /** Failures by day, the day counted from the epoch. */
  readonly recent: Readonly<Record<string, number>>;
  /** Epoch milliseconds until which nothing is tried. */
  readonly openUntil: number;
}

export const BREAK_AFTER = 4;
export const REST_MS = 60 * 60_000;
export const FAIL_AFTER = 100;
const DAY_MS = 24 * 60 * 60_000;
const DAYS = 7;
/** How long the one that tries may take before another may. */
const PROBE_MS = 30_000;

export const CLOSED: Circuit = { state: "active", failures: 0, recent: {}, openUntil: 0 };

/** What may be done now: `probe` is for the first who says so (`probing`). */
export function standing({ state, failures, openUntil }: Circuit, now: number): "go" | "probe" | "rests" | "failed" {
  if (state === "failed") return "failed";
  if (openUntil > now) return "rests";
  return failures >= BREAK_AFTER ? "probe" : "go";
}

/** One tries, the others go on resting. */
export function probing<T extends Circuit>(circuit: T, now: number): T {
  return { ...circuit, openUntil: now + PROBE_MS };
}

export function afterFailure<T extends Circuit>(circuit: T, now: number): T {
  const today = Math.floor(now / DAY_MS);
  const recent = Object.fromEntries(Object.entries(circuit.recent).filter(([day]) => Number(day) > today - DAYS));
  recent[today] = (recent[today] ?? 0) + 1;
  const failures = circuit.failures + 1;
  const inAll = Object.values(recent).reduce((sum, count) => sum + count, 0);
  return {
    ...circuit,
    failures,
    recent,
    openUntil: failures >= BREAK_AFTER ? now + REST_MS : 0,
    state: inAll >= FAIL_AFTER ? "failed" : "active",
  };
}

/** The failures of the week stay: they are what they were. */
export function afterSuccess<T extends Circuit>(circuit: T): T {
  return { ...circuit, failures: 0, openUntil: 0 };
}
