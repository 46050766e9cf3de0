/**
 * Streams, buckets and object stores as `contracts/streams` describes them, made or brought up to date at start.
 *
 * T1 Several processes may start at once, also of different versions: every step may be repeated and an older process takes nothing away.
 * T2 An update never loses data: subjects are only added (those that moved to another stream go, their messages stay), features only switched on, and a limit is not narrowed below what is stored (`kept` says so).
 * T3 What cannot be changed (storage, retention) is a `failed_precondition` that names the field, what is there and what was asked for.
 * T4 A cluster comes up one server after the other: what it cannot place yet is asked for again, for half a minute.
 */
import { setTimeout as pause } from "node:timers/promises";
import { nanos } from "@nats-io/transport-node";
import { type StreamConfig, type StreamInfo } from "@nats-io/jetstream";
import { BeamlineError } from "../contracts/errors.ts";
import type { BucketSpec, ObjectSpec, StreamSpec } from "../contracts/streams.ts";
import { apiCode, apiCodeOf, fromJetStream } from "./apierror.ts";
import type { Bus } from "./connect.ts";

export interface EnsureOptions {
  /** Copies kept, 1 to 5. Default 1; three in a cluster. */
  readonly replicas?: number;
}

export interface Ensured {
  readonly stream: string;
  readonly outcome: "created" | "updated" | "unchanged";
  /** Limits that stay as wide as they are, because narrowing them would delete messages (T2). Worth a warning. */
  readonly kept: readonly string[];
}

type Config = Partial<StreamConfig> & { readonly name: string };

/** Makes or updates streams. Throws `failed_precondition` naming the field (T3), `unavailable` when JetStream does not answer (T4). */
export async function ensureStreams(
  bus: Bus,
  specs: Iterable<StreamSpec>,
  options?: EnsureOptions,
): Promise<Ensured[]> {
  const all = [...specs];
  for (const spec of all) await settled(bus, () => letGo(bus, spec));
  return ensureAll(bus, all, options, streamConfig);
}

/** Makes or updates key-value buckets; other clients' key-value tools find them under the same names. Throws as `ensureStreams`. */
export function ensureBuckets(bus: Bus, specs: Iterable<BucketSpec>, options?: EnsureOptions): Promise<Ensured[]> {
  return ensureAll(bus, specs, options, bucketConfig);
}

/** Makes or updates object stores; other clients' object store tools find them under the same names. Throws as `ensureStreams`. */
export function ensureObjects(bus: Bus, specs: Iterable<ObjectSpec>, options?: EnsureOptions): Promise<Ensured[]> {
  return ensureAll(bus, specs, options, objectConfig);
}

const base = { storage: "file", discard: "old", allow_direct: true, max_msgs: -1, max_consumers: -1 } as const;

function streamConfig(spec: StreamSpec, { replicas = 1 }: EnsureOptions): Config {
  return {
    ...base,
    name: spec.name,
    description: spec.purpose,
    subjects: [...spec.subjects],
    retention: spec.retention,
    max_age: nanos(spec.maxAgeMs),
    max_bytes: spec.maxBytes,
    duplicate_window: nanos(spec.duplicateWindowMs),
    num_replicas: replicas,
    allow_msg_ttl: spec.schedules,
    allow_msg_schedules: spec.schedules,
    allow_atomic: spec.atomic,
    ...(spec.appendOnly === true && { deny_delete: true, deny_purge: true }),
  };
}

const DUPLICATE_WINDOW_MS = 120_000;
/** How long the mark of an expired value stays: watchers that were away for longer read everything anew anyway. */
const MARK_MS = 3_600_000;

function bucketConfig(spec: BucketSpec, { replicas = 1 }: EnsureOptions): Config {
  const expires = spec.ttlMs > 0;
  return {
    ...base,
    name: `KV_${spec.name}`,
    description: spec.purpose,
    subjects: [`$KV.${spec.name}.>`],
    retention: "limits",
    discard: "new",
    max_msgs_per_subject: spec.history,
    max_age: nanos(spec.ttlMs),
    duplicate_window: nanos(expires ? Math.min(spec.ttlMs, DUPLICATE_WINDOW_MS) : DUPLICATE_WINDOW_MS),
    num_replicas: replicas,
    allow_rollup_hdrs: true,
    // A value that expires leaves a mark, so that watchers see it go.
    ...(expires && {
      allow_msg_ttl: true,
      subject_delete_marker_ttl: nanos(Math.max(1_000, Math.min(spec.ttlMs, MARK_MS))),
    }),
  };
}

function objectConfig(spec: ObjectSpec, { replicas = 1 }: EnsureOptions): Config {
  return {
    ...base,
    name: `OBJ_${spec.name}`,
    description: spec.purpose,
    subjects: [`$O.${spec.name}.C.>`, `$O.${spec.name}.M.>`],
    retention: "limits",
    discard: "new",
    max_age: nanos(spec.maxAgeMs),
    num_replicas: replicas,
    allow_rollup_hdrs: true,
  };
}

async function ensureAll<S>(
  bus: Bus,
  specs: Iterable<S>,
  options: EnsureOptions = {},
  configOf: (spec: S, options: EnsureOptions) => Config,
): Promise<Ensured[]> {
  const configs = Array.from(specs, (spec) => configOf(spec, options));
  const done: Ensured[] = [];
  for (const config of configs) done.push(await settled(bus, () => ensure(bus, config)));
  return done;
}

const SETTLE_MS = 30_000;
const ASK_AGAIN_MS = 250;

/** T4. */
async function settled<T>(bus: Bus, attempt: () => Promise<T>): Promise<T> {
  const deadline = performance.now() + SETTLE_MS;
  for (;;) {
    try {
      return await attempt();
    } catch (thrown) {
      const passing = thrown instanceof BeamlineError && thrown.code === "unavailable";
      if (!passing || bus.nc.isClosed() || performance.now() > deadline) throw thrown;
      await pause(ASK_AGAIN_MS);
    }
  }
}

async function ensure(bus: Bus, config: Config): Promise<Ensured> {
  const { streams } = bus.jsm;
  const stream = config.name;
  try {
    let info = await infoOf(bus, stream);
    if (info === undefined) {
      try {
        await streams.add(config);
        return { stream, outcome: "created", kept: [] };
      } catch (thrown) {
        // Another process was first, with another idea of it.
        if (apiCodeOf(thrown) !== apiCode.streamNameInUse) throw thrown;
        info = await streams.info(stream);
      }
    }
    refuseConflicts(config, info.config);
    const kept = lossy(config, info);
    const change = changeTo(config, info.config, kept);
    if (change !== undefined) await streams.update(stream, change);
    return { stream, outcome: change === undefined ? "unchanged" : "updated", kept };
  } catch (thrown) {
    throw explained(thrown, config);
  }
}

async function letGo(bus: Bus, { name, moved = [] }: StreamSpec): Promise<void> {
  if (moved.length === 0) return;
  try {
    const { config } = (await infoOf(bus, name)) ?? { config: { subjects: [] } };
    const subjects = config.subjects.filter((subject) => !moved.includes(subject));
    if (subjects.length < config.subjects.length) await bus.jsm.streams.update(name, { subjects });
  } catch (thrown) {
    throw explained(thrown, { name });
  }
}

async function infoOf(bus: Bus, name: string): Promise<StreamInfo | undefined> {
  try {
    return await bus.jsm.streams.info(name);
  } catch (thrown) {
    if (apiCodeOf(thrown) === apiCode.streamNotFound) return undefined;
    throw thrown;
  }
}

/** T3. */
function refuseConflicts(wanted: Config, current: StreamConfig): void {
  for (const field of ["storage", "retention"] as const) {
    if (wanted[field] !== current[field]) throw conflict(wanted.name, field, current[field], wanted[field]);
  }
}

/** T2: the limits whose narrowing would delete what is stored, or which the server does not let narrow. */
function lossy(wanted: Config, { config: current, state }: StreamInfo): string[] {
  const { max_bytes: bytes = -1, max_age: age = 0, max_msgs_per_subject: perSubject = -1 } = wanted;
  const fields: string[] = [];
  // A stream made with schedules must be able to purge, and keeps them.
  if (wanted.deny_purge === true && current.allow_msg_schedules === true) fields.push("deny_purge");
  if (state.messages === 0) return fields;
  const oldestNs = (Date.now() - Date.parse(state.first_ts)) * 1e6;
  if (narrower(bytes, current.max_bytes) && state.bytes > bytes) fields.push("max_bytes");
  if (narrower(age, current.max_age) && oldestNs > age) fields.push("max_age");
  if (narrower(perSubject, current.max_msgs_per_subject)) fields.push("max_msgs_per_subject");
  return fields;
}

/** Zero and below are no limit. */
function narrower(wanted: number, current: number): boolean {
  return wanted > 0 && (current <= 0 || wanted < current);
}

/** What an update has to say, undefined when there is nothing to change. */
function changeTo(wanted: Config, current: StreamConfig, kept: readonly string[]): Config | undefined {
  const held = new Map<string, unknown>(Object.entries(current));
  const change: Record<string, unknown> = {};
  for (const [field, value] of Object.entries(wanted)) {
    const have = held.get(field);
    if (field === "subjects") {
      const missing = (wanted.subjects ?? []).filter((subject) => !current.subjects.includes(subject));
      if (missing.length > 0) change[field] = [...current.subjects, ...missing];
    } else if (typeof value === "boolean") {
      if (value && have !== true && !kept.includes(field)) change[field] = true;
    } else if (!kept.includes(field) && value !== (have ?? (typeof value === "number" ? 0 : ""))) change[field] = value;
  }
  return Object.keys(change).length === 0 ? undefined : { ...change, name: wanted.name };
}

function conflict(stream: string, field: string, current: unknown, wanted: unknown): BeamlineError {
  return new BeamlineError(
    "failed_precondition",
    `stream ${stream}: ${field} is ${String(current)}, ${String(wanted)} is asked for, and that cannot be changed`,
    { field, details: { stream, current, wanted } },
  );
}

/** The server's own refusal, with the field its words are about. */
function explained(thrown: unknown, { name, subjects, num_replicas: replicas }: Config): BeamlineError {
  const code = apiCodeOf(thrown);
  const error = fromJetStream(thrown, `stream ${name}`);
  const about = (field: string, text: string): BeamlineError =>
    new BeamlineError("failed_precondition", `stream ${name}: ${field}: ${text}`, {
      field,
      details: error.details,
      cause: thrown,
    });
  if (code === apiCode.subjectsOverlap)
    return about("subjects", `another stream already takes one of ${subjects?.join(", ") ?? ""}`);
  if (code === apiCode.replicasNotSupported)
    return about("num_replicas", `${replicas ?? 1} replicas need a cluster of at least that many servers`);
  if (code === apiCode.streamConfigInvalid && error.message.includes("duplicates window"))
    return about("duplicate_window", "is longer than max_age");
  return error;
}
