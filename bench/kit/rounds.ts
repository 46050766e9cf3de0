/** Pairs of measurements, and what they say. */
import { availableParallelism } from "node:os";
import type { Comparison, Load, Round, Row, Sample, Side, SideSummary } from "../case.ts";
import { busySeconds, cpuSeconds } from "./proc.ts";

/** Fewer pairs than this make no result. */
export const MIN_PAIRS = 8;

/** Samples of each side that are thrown away: Node is still compiling. */
const WARM_UPS = 2;

/** Warms each side up, then `rounds` rounds in which every side is measured once; the side that begins changes from round to round. */
export async function alternate(sides: readonly Side[], rounds: number, say: (line: string) => void): Promise<Round[]> {
  for (let i = 0; i < WARM_UPS; i++) for (const side of sides) await sample(side);
  const done: Round[] = [];
  for (let round = 0; round < rounds; round++) {
    const order = sides.map((_, i) => (i + round) % sides.length);
    const samples: Sample[] = [];
    for (const i of order) {
      const side = sides[i];
      if (side !== undefined) samples[i] = await sample(side);
    }
    done.push(samples);
    say(`  round ${round + 1}/${rounds}: ${samples.map((one, i) => `${sides[i]?.label} ${brief(one)}`).join(", ")}`);
  }
  return done;
}

async function sample(side: Side): Promise<Sample> {
  const started = performance.now();
  const busyBefore = busySeconds();
  const before = Object.entries(side.processes).map(([name, pid]) => [name, pid, cpuSeconds(pid)] as const);
  const load = await side.load();
  const own = before.map(([name, pid, seconds]) => [name, cpuSeconds(pid) - seconds] as const);
  const spent = [...own, ...Object.entries(load.cpuSeconds ?? {})];
  const elapsed = (performance.now() - started) / 1000;
  const foreign = busySeconds() - busyBefore - spent.reduce((sum, [, seconds]) => sum + seconds, 0);
  return {
    ...load,
    cpuUs: Object.fromEntries(spent.map(([name, seconds]) => [name, (seconds / load.count) * 1e6])),
    others: Math.min(1, Math.max(0, foreign / elapsed / availableParallelism())),
  };
}

/** Median over all samples. */
export function othersIn(rounds: readonly Round[]): number {
  return median(rounds.flat().map(({ others }) => others));
}

export const perSecond = ({ count, seconds }: Load): number => count / seconds;

/** The row of a comparison of two. */
export function rowOf(comparison: Comparison, rounds: readonly Round[]): Row {
  const { measure, over, under, figure = perSecond, target, aim, better, note } = comparison;
  const ratios = rounds.map(([a, b]) => (a === undefined || b === undefined ? Number.NaN : figure(a) / figure(b)));
  const byThroughput = comparison.figure === undefined;
  return {
    measure,
    value: median(ratios),
    spread: [quantile(ratios, 0.25), quantile(ratios, 0.75)],
    pairs: rounds.length,
    others: othersIn(rounds),
    sides: [over, under].map((side, i) => summary(side.label, column(rounds, i))),
    ...(byThroughput && { byCpu: median(rounds.map(([a, b]) => (a && b ? needs(b) / needs(a) : Number.NaN))) }),
    ...(target !== undefined && { target }),
    ...(aim !== undefined && { aim }),
    ...(better !== undefined && { better }),
    ...(note !== undefined && { note }),
    raw: rounds,
  };
}

/** One side's samples of all rounds. */
export function column(rounds: readonly Round[], side: number): Sample[] {
  return rounds.flatMap((round) => round[side] ?? []);
}

/**
 * µs a call needs on an otherwise idle machine, by CPU time alone: what its busiest process spends (one of Node is one thread), or what all
 * spend together over the cores, whichever is more. Waiting is not in it.
 */
export function needs({ cpuUs }: Pick<Sample, "cpuUs">): number {
  const spent = Object.values(cpuUs);
  return Math.max(...spent, spent.reduce((sum, us) => sum + us, 0) / availableParallelism());
}

export function summary(label: string, samples: readonly Sample[]): SideSummary {
  const of = (pick: (sample: Sample) => number | undefined): number =>
    median(samples.flatMap((one) => pick(one) ?? []));
  const p50Ms = of((one) => one.p50Ms);
  const p99Ms = of((one) => one.p99Ms);
  const names = Object.keys(samples[0]?.cpuUs ?? {});
  return {
    label,
    perSecond: of(perSecond),
    ...(!Number.isNaN(p50Ms) && { p50Ms }),
    ...(!Number.isNaN(p99Ms) && { p99Ms }),
    cpuUs: Object.fromEntries(names.map((name) => [name, of((one) => one.cpuUs[name])])),
  };
}

export function median(values: readonly number[]): number {
  return quantile(values, 0.5);
}

/** Linear between the two nearest. NaN of nothing. */
export function quantile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  const at = (sorted.length - 1) * share;
  const low = sorted[Math.floor(at)];
  const high = sorted[Math.ceil(at)];
  return low === undefined || high === undefined ? Number.NaN : low + (high - low) * (at - Math.floor(at));
}

function brief(sample: Sample): string {
  const rate = `${Math.round(perSecond(sample))}/s`;
  return sample.p50Ms === undefined ? rate : `${rate} p50 ${sample.p50Ms.toFixed(3)} ms`;
}
