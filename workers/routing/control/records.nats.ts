/**
 * What the control surface remembers, in the bucket `control`: projects, indexes, tasks, chats, subscriptions, key `<tenant>.<kind>.<id>`.
 *
 * R1 A record's id is made of tenant, operation and idempotency key: a request that is repeated finds what it made, on whichever router. With other
 *    content the key is refused, and nothing is changed.
 * R2 Changes are checked against what is there and made again when somebody else was first.
 */
import { hash } from "node:crypto";
import type { Bus } from "../../../bus/connect.ts";
import { keyOf } from "../../../bus/keys.ts";
import { Bucket, jsonCodec } from "../../../bus/keyvalue.ts";
import type { JsonObject } from "../../../contracts/codec.ts";
import { BeamlineError } from "../../../contracts/errors.ts";
import { buckets } from "../../../contracts/streams.ts";
import { refuse } from "../intake/refusal.ts";
import { uuidOf } from "../intake/uuid.ts";
import type { ControlRequest } from "./door.ts";

export interface Project {
  readonly project_id: string;
  readonly name: string;
  readonly metadata: Readonly<JsonObject>;
  readonly status: "open" | "closed";
  readonly opened_at_ms: number;
  readonly closed_at_ms?: number;
}

export interface Index {
  readonly index_id: string;
  readonly project_id: string;
  readonly status: "running" | "completed" | "cancelled" | "failed";
  readonly documents: number;
  readonly indexed: number;
  readonly error?: string;
  readonly started_at_ms: number;
  readonly updated_at_ms: number;
}

export interface Task {
  /** Of the assignment too. */
  readonly task_id: string;
  readonly type: string;
  readonly project_id?: string;
  readonly chat_id?: string;
  readonly status: "submitted" | "success" | "error" | "timeout" | "cancelled";
  readonly provider_id: string;
  readonly submitted_at_ms: number;
  readonly finished_at_ms?: number;
  /** The result, as it was reported. */
  readonly result?: Readonly<JsonObject>;
}

export interface Turn {
  readonly role: "system" | "user" | "assistant";
  readonly content: string;
  /** The task that answers it, or whose answer it is. */
  readonly task_id?: string;
}

export interface Chat {
  readonly chat_id: string;
  readonly project_id?: string;
  readonly policy_id?: string;
  readonly turns: readonly Turn[];
  /** The task whose answer is waited for. */
  readonly waiting_for?: string;
  readonly started_at_ms: number;
}

export interface Subscription {
  readonly subscription_id: string;
  readonly subject: string;
  /** Kinds of events; all when empty. */
  readonly types: readonly string[];
  readonly expires_at_ms: number;
}

interface Kinds {
  readonly project: Project;
  readonly index: Index;
  readonly task: Task;
  readonly chat: Chat;
  readonly subscription: Subscription;
}
type Kind = keyof Kinds;

/** A value beside what tells whether a repeated request is the same. */
interface Stored<T> {
  readonly digest: string;
  readonly value: T;
}

/** Fields of a request that say who asks, not what for. */
const transport = new Set(["request_id", "trace_id", "idempotency_key", "token"]);

export class Records {
  readonly #bucket: Bucket<unknown>;

  constructor(bus: Bus) {
    this.#bucket = new Bucket(bus, buckets.control, jsonCodec<unknown>());
  }

  /** R1: what this request makes, or made before. */
  async make<K extends Kind>(
    kind: K,
    request: ControlRequest,
    value: (id: string) => Kinds[K] | Promise<Kinds[K]>,
  ): Promise<{ readonly value: Kinds[K]; readonly fresh: boolean }> {
    const { tenant, operation, key } = request;
    const id = uuidOf("control", tenant, operation, key);
    const digest = digestOf(request.body);
    const before = await this.#stored<K>(kind, tenant, id);
    if (before !== undefined) return { value: same(before, digest), fresh: false };
    const made: Stored<Kinds[K]> = { digest, value: await value(id) };
    try {
      await this.#bucket.create(keyOf(tenant, kind, id), made);
      return { value: made.value, fresh: true };
    } catch (thrown) {
      if (BeamlineError.from(thrown).code !== "already_exists") throw thrown;
      const other = await this.#stored<K>(kind, tenant, id);
      if (other === undefined) throw thrown;
      return { value: same(other, digest), fresh: false };
    }
  }

  async find<K extends Kind>(kind: K, tenant: string, id: string): Promise<Kinds[K] | undefined> {
    return (await this.#stored<K>(kind, tenant, id))?.value;
  }

  /** Throws `not_found` naming the field that named it; another tenant's look like none. */
  async get<K extends Kind>(kind: K, tenant: string, id: string): Promise<Kinds[K]> {
    const found = await this.find(kind, tenant, id);
    if (found === undefined) throw unknown(kind, id);
    return found;
  }

  /** R2: gives what is there afterwards; `change` gives the same object to leave it. */
  async change<K extends Kind>(
    kind: K,
    tenant: string,
    id: string,
    change: (value: Kinds[K]) => Kinds[K],
  ): Promise<Kinds[K]> {
    const key = keyOf(tenant, kind, id);
    for (;;) {
      const entry = await this.#bucket.get(key);
      if (entry === undefined) throw unknown(kind, id);
      const { digest, value } = entry.value as Stored<Kinds[K]>;
      const next = change(value);
      if (next === value) return value;
      try {
        await this.#bucket.update(key, { digest, value: next }, entry.revision);
        return next;
      } catch (thrown) {
        if (BeamlineError.from(thrown).code !== "aborted") throw thrown;
      }
    }
  }

  async list<K extends Kind>(kind: K, tenant: string): Promise<Kinds[K][]> {
    const entries = await this.#bucket.list(`${keyOf(tenant, kind)}.*`);
    return entries.map(({ value }) => (value as Stored<Kinds[K]>).value);
  }

  async #stored<K extends Kind>(kind: K, tenant: string, id: string): Promise<Stored<Kinds[K]> | undefined> {
    return (await this.#bucket.get(keyOf(tenant, kind, id)))?.value as Stored<Kinds[K]> | undefined;
  }
}

function same<T>({ digest, value }: Stored<T>, asked: string): T {
  if (digest === asked) return value;
  throw refuse(
    "IDEMPOTENCY_VIOLATION",
    "Idempotency violation: the key was used with a different request",
    "idempotency_key",
  );
}

function unknown(kind: Kind, id: string): BeamlineError {
  return new BeamlineError("not_found", `no ${kind} of this id is known`, { field: `${kind}_id`, details: { id } });
}

function digestOf(body: Readonly<JsonObject>): string {
  const asked = Object.entries(body)
    .filter(([name]) => !transport.has(name))
    .sort(([a], [b]) => (a < b ? -1 : 1));
  return hash("sha256", JSON.stringify(asked), "base64url");
}
