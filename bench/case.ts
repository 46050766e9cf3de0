/**
 * What a benchmark is. Every file `bench/*.ts` that exports `cases: readonly BenchCase[]` is found by `npm run bench`; nothing else is registered
 * anywhere. Files of one domain begin with its name: `bench/memory.ts`, `bench/memory.search.ts`. Processes they start beside the product live
 * in `bench/peers/`.
 *
 * A figure is a ratio of two sides measured in one run, pair after pair, the first side alternating: the machine's speed drops out. Beside it
 * stands the ratio that CPU time alone would give, so that noise of a shared machine can be told from cost.
 *
 *     export const cases: readonly BenchCase[] = [
 *       {
 *         name: "memory-push", title: "PushEvent over NATS ÷ bare NATS echo", target: 0.7,
 *         async run(ctx) {
 *           const stack = await ctx.stack({ workers: ["memory"] });
 *           const echo = await ctx.peer("natsecho.ts", { env: stack.login("worker") });
 *           const load = await ctx.peer("natsload.ts", { env: stack.login("edge") });
 *           const side = (subject: string, server: number): Side => ({
 *             label: subject, processes: { server, nats: stack.processes.nats },
 *             load: () => load.ask<Load>({ how: "muxed", subject, bodies, inFlight: 128, count: 10_000 }),
 *           });
 *           return [await ctx.compare({ measure: "PushEvent ÷ echo, requests/s", over: side(…), under: side(…) })];
 *         },
 *       },
 *     ];
 */
import type { Bus } from "../bus/connect.ts";
import type { LocalServers, NatsUser } from "../deploy/local/servers.ts";

export interface BenchCase {
  /** `npm run bench <name>`, and part of the result's file name: lower case with dashes, its domain first. */
  readonly name: string;
  readonly title: string;
  /** What must be reached, and what is hoped for, by rows that name none of their own. */
  readonly target?: number;
  readonly aim?: number;
  /** Which way target and aim lie. Default `higher`. */
  readonly better?: Better;
  /** Measures. What it starts through `ctx` is ended when it returns or throws. */
  run(ctx: BenchContext): Promise<Row[]>;
}

export type Better = "higher" | "lower";

/** One line of the table. */
export interface Row {
  readonly measure: string;
  /** The figure: the median over pairs, when it is a ratio. */
  readonly value: number;
  /** Default: a ratio. Else the unit, `ms` for instance. */
  readonly unit?: string;
  /** Lower and upper quartile of the pairs. */
  readonly spread?: readonly [number, number];
  /** The ratio by CPU time alone: per call the busiest process, or all of them over the cores, whichever is more (see kit/rounds). */
  readonly byCpu?: number;
  readonly pairs?: number;
  /** Median share of the machine's CPU time that other programs took: what makes the figure unsure. */
  readonly others?: number;
  /** `null`: told for comparison, with nothing to reach, whatever its case says. */
  readonly target?: number | null;
  readonly aim?: number | null;
  readonly better?: Better;
  /** Each side's medians, first the one that is over the line. */
  readonly sides?: readonly SideSummary[];
  /** A formula, or what to keep in mind. */
  readonly note?: string;
  /** Kept in the JSON file alone: every round as measured. */
  readonly raw?: unknown;
}

export interface SideSummary {
  readonly label: string;
  readonly perSecond: number;
  readonly p50Ms?: number;
  readonly p99Ms?: number;
  /** CPU µs per call by process, median over rounds. */
  readonly cpuUs: Readonly<Record<string, number>>;
}

/** One load that ran: how many calls were answered, well, and in what time. */
export interface Load {
  readonly count: number;
  readonly seconds: number;
  readonly p50Ms?: number;
  readonly p99Ms?: number;
  /** CPU seconds of processes that were gone before they could be looked at (h2load), by name. */
  readonly cpuSeconds?: Readonly<Record<string, number>>;
}

/** One of the things compared. */
export interface Side {
  readonly label: string;
  /** Process ids whose CPU time belongs to it, by name; the load generator under `client`. */
  readonly processes: Readonly<Record<string, number>>;
  /** One load, bounded in count; about a second long. Throws when a call fails: a refused call is not a fast one. */
  load(): Promise<Load>;
}

export interface Sample extends Load {
  readonly cpuUs: Readonly<Record<string, number>>;
  /** Share of the machine's CPU time that went to other programs meanwhile, 0 to 1. */
  readonly others: number;
}

/** One sample of each side, in the order the sides were given. */
export type Round = readonly Sample[];

export interface Comparison {
  readonly measure: string;
  readonly over: Side;
  readonly under: Side;
  /** What is divided. Default calls per second. */
  readonly figure?: (load: Load) => number;
  readonly target?: number | null;
  readonly aim?: number | null;
  readonly better?: Better;
  readonly note?: string;
}

export interface StackOptions {
  readonly workers: readonly string[];
  /** Further settings, of both, of the edge, of the workers. */
  readonly env?: Readonly<Record<string, string>>;
  readonly edgeEnv?: Readonly<Record<string, string>>;
  readonly workerEnv?: Readonly<Record<string, string>>;
  /** One process per worker instead of one for all. */
  readonly each?: boolean;
  /** JetStream's `sync_interval`. Default `always`, as shipped. */
  readonly syncInterval?: string;
}

/** Servers, edge and workers of their own, each a process, started as `npm start` starts them, on free loopback ports. */
export interface Stack {
  readonly servers: LocalServers;
  /** `host:port`. */
  readonly grpc: string;
  /** `http://host:port`. */
  readonly http: string;
  /** The API key of tenant `default` with every scope; the admin key too. */
  readonly key: string;
  /** Process ids; `workers` is the first one of `each`. */
  readonly processes: {
    readonly edge: number;
    readonly workers: number;
    readonly nats: number;
    readonly redis: number;
  };
  /** Environment with which a peer finds NATS and Redis and logs in. */
  login(user: NatsUser): Record<string, string>;
  /** A connection of this process, closed with the case. Default user `operator`. */
  connect(user?: NatsUser): Promise<Bus>;
}

/** A process beside the product: an echo server, a load generator. Written with `servePeer` (kit/peer.ts). */
export interface Peer {
  readonly pid: number;
  /** What it said when it was ready: its port, for instance. */
  readonly ready: Readonly<Record<string, unknown>>;
  /** Asks it to do something and waits for the answer, at most `withinMs` (default 60 000). Throws what it threw. */
  ask<T>(what: object, withinMs?: number): Promise<T>;
  stop(): Promise<void>;
}

export interface PeerOptions {
  readonly env?: Readonly<Record<string, string>>;
  /** Node's flags. Default: those of production, as the edge has them. */
  readonly flags?: readonly string[];
}

export interface BenchContext {
  /** Pairs per comparison. Fewer than 8 are for trying things out, and marked so. */
  readonly rounds: number;
  /** A line of progress. */
  say(line: string): void;
  /** Started anew for each call, ended with the case. */
  stack(options: StackOptions): Promise<Stack>;
  /** Servers alone, for the bare side of a comparison. */
  servers(options?: { readonly syncInterval?: string }): Promise<LocalServers>;
  /** Starts `bench/peers/<file>`; ended with the case. */
  peer(file: string, options?: PeerOptions): Promise<Peer>;
  /** A warm-up of each side, then `rounds` pairs, the first side alternating. */
  compare(comparison: Comparison): Promise<Row>;
  /** The same for any number of sides, for figures that are not a plain ratio of two. */
  alternate(what: string, sides: readonly Side[]): Promise<Round[]>;
  /** Closes something when the case ends, in reverse order. */
  readonly defer: (close: () => unknown) => void;
}
