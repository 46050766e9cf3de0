/**
 * Live and ready. A process is live as long as it can answer at all; it is ready while it is serving and every named
 * part says it can work. The phase is moved by `lifecycle.ts`, the checks are added by whoever opened the part.
 */
import { systemClock } from "./clock.ts";
import type { Clock } from "./clock.ts";
import { redactErrorText } from "./redact.ts";

/** Where a process is in its life; it moves forward only. */
export type Phase = "starting" | "serving" | "draining" | "stopped";

/** What a check says: fine or not, and why. */
export type CheckResult = boolean | { readonly ok: boolean; readonly detail?: string };
export type Check = () => CheckResult | Promise<CheckResult>;

export interface PartHealth {
  readonly ok: boolean;
  readonly detail?: string;
}

export interface Readiness {
  readonly ok: boolean;
  /** The process itself under `process`, then each part by its name. */
  readonly parts: Readonly<Record<string, PartHealth>>;
}

export interface Health {
  phase: Phase;
  /** Adds a part; a second one of the same name takes the first one's place. Gives back how to remove it. */
  add(name: string, check: Check): () => void;
  /** Whether the process should be left running. */
  live(): boolean;
  /** Asks every part. Never throws, and never takes longer than the timeout. */
  ready(): Promise<Readiness>;
}

/** @param timeoutMs how long a check may take before its part counts as not ready; 1000 when left out */
export function createHealth({
  timeoutMs = 1_000,
  clock = systemClock,
}: { timeoutMs?: number; clock?: Clock } = {}): Health {
  const checks = new Map<string, Check>();
  let asking: Promise<Record<string, PartHealth>> | undefined;

  async function askAll(): Promise<Record<string, PartHealth>> {
    const answers = [...checks].map(async ([name, check]) => [name, await ask(check, timeoutMs, clock)] as const);
    return Object.fromEntries(await Promise.all(answers));
  }

  return {
    phase: "starting",
    add(name, check) {
      checks.set(name, check);
      return () => {
        if (checks.get(name) === check) checks.delete(name);
      };
    },
    live() {
      return this.phase !== "stopped";
    },
    async ready() {
      // However many ask at a time, the parts are asked once.
      asking ??= askAll().finally(() => (asking = undefined));
      const parts = await asking;
      const process = this.phase === "serving" ? { ok: true } : { ok: false, detail: this.phase };
      return { ok: process.ok && Object.values(parts).every(({ ok }) => ok), parts: { process, ...parts } };
    },
  };
}

async function ask(check: Check, timeoutMs: number, clock: Clock): Promise<PartHealth> {
  const answered = new AbortController();
  try {
    const late = clock.sleep(timeoutMs, answered.signal).then(
      () => ({ ok: false, detail: `no answer within ${timeoutMs} ms` }),
      () => false,
    );
    const result = await Promise.race([answerOf(check), late]);
    return typeof result === "boolean" ? { ok: result } : result;
  } finally {
    answered.abort();
  }
}

async function answerOf(check: Check): Promise<CheckResult> {
  try {
    return await check();
  } catch (error) {
    return { ok: false, detail: error instanceof Error ? redactErrorText(error.message) : "failed" };
  }
}
