/**
 * Policies: the bucket `policies` is the truth, memory is what decisions read, and the watch alone feeds memory.
 *
 * P1 A change is made on the revision it was based on, or made again on the newer one; nobody overwrites what they have not seen.
 * P2 A change is answered when the bucket has it and this worker's watch has brought it here: whatever this worker decides after that, it
 *    decides by it. Other workers learn of it by their own watch, moments later.
 * P3 A value nobody can read is reported and passed over; the last good one stays in force.
 * P4 Policies of the shared tenant `*` serve tenants without one of their own of that id; as a tenant it is nobody's name.
 */
import type { Bus } from "../../../bus/connect.ts";
import { Bucket, type Entry } from "../../../bus/keyvalue.ts";
import { watchInto, type Watch } from "../../../bus/watch.ts";
import { BeamlineError } from "../../../contracts/errors.ts";
import type { JsonObject } from "../../../contracts/codec.ts";
import { buckets } from "../../../contracts/streams.ts";
import { compilePolicy, type Policy } from "./compile.ts";
import { Turns } from "../shared/turns.ts";
import { keyOfPolicy, nameOfKey } from "./policykey.ts";
import { limits, readPolicy, type PolicyDocument } from "./policy.ts";
import type { Policies } from "../ports.ts";

/** The tenant whose policies serve everyone. Requests cannot name it: it is no legal tenant id. */
export const SHARED_TENANT = "*";

export interface StoreOptions {
  /** Told of values that cannot be read (P3). */
  readonly onUnreadable?: (key: string, error: BeamlineError) => void;
  /** Told when the watch is behind and being mended. */
  readonly onTrouble?: (error: BeamlineError) => void;
  readonly onLoaded?: (tenant: string) => void;
  /** Policies a tenant may have. Default 10. */
  readonly quota?: number;
}

/** Makes a document from the stored one, undefined when there is none; may be called again on a newer one. */
export type Change = (stored: Policy | undefined) => PolicyDocument;

/** How often a change is made again on newer revisions before it is given up. */
const ATTEMPTS = 20;

/** How long an answered change waits for the watch, milliseconds. Beyond that the watch is broken, and the change is durable all the same. */
const WATCH_MS = 2_000;

/** In place of a revision: the key was deleted. Newer than any revision before. */
const GONE = Infinity;

const text = {
  encode: (value: string) => value,
  decode: (bytes: Uint8Array) => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("utf8"),
};

export class PolicyStore implements Policies {
  readonly #bucket: Bucket<string>;
  readonly #options: StoreOptions;
  readonly #tenants = new Map<string, Map<string, Policy>>();
  /** Changes of a tenant wait for one another: the quota counts what was there before. */
  readonly #turns = new Turns();
  /** Changes of this worker that wait for the watch. */
  readonly #waiting = new Set<(key: string, revision: number) => void>();
  #watch: Watch<string> | undefined;

  constructor(bus: Bus, options: StoreOptions = {}) {
    this.#bucket = new Bucket(bus, buckets.policies, text);
    this.#options = options;
  }

  /** Loads everything and follows every change. Resolves when everything is loaded. */
  async open(): Promise<void> {
    this.#watch = watchInto(this.#bucket, {
      onChange: (key, entry) => this.#apply(key, entry),
      ...(this.#options.onTrouble && { onError: this.#options.onTrouble }),
    });
    await this.#watch.ready;
  }

  close(): void {
    this.#watch?.stop();
  }

  find(tenant: string, policyId: string): Policy | undefined {
    return this.#tenants.get(tenant)?.get(policyId) ?? this.#tenants.get(SHARED_TENANT)?.get(policyId);
  }

  /** The tenant's own policy. */
  own(tenant: string, policyId: string): Policy | undefined {
    return this.#tenants.get(tenant)?.get(policyId);
  }

  /** The tenant's own policies, ordered by id. */
  list(tenant: string): Policy[] {
    return [...(this.#tenants.get(tenant)?.values() ?? [])].sort((a, b) => (a.id < b.id ? -1 : 1));
  }

  /** How many policies there are. */
  get size(): number {
    let size = 0;
    for (const policies of this.#tenants.values()) size += policies.size;
    return size;
  }

  /** Creates or replaces; the same document again is no change. Throws `quota_exceeded` for a new one too many, `aborted` when others keep changing it, and what `change` throws. */
  put(tenant: string, policyId: string, change: Change): Promise<void> {
    const key = keyOfPolicy(tenant, policyId);
    return this.#changing(tenant, key, async (entry) => {
      const stored = entry === undefined ? undefined : this.#stored(tenant, policyId, entry);
      const document = change(stored);
      const value = JSON.stringify({ policy_id: policyId, tenant_id: tenant, ...document });
      if (entry?.value === value) return entry.revision;
      if (entry !== undefined) return this.#bucket.update(key, value, entry.revision);
      this.#checkQuota(tenant);
      return this.#bucket.create(key, value);
    });
  }

  /** Removes. Throws `policy_not_found`. */
  delete(tenant: string, policyId: string): Promise<void> {
    const key = keyOfPolicy(tenant, policyId);
    return this.#changing(tenant, key, async (entry) => {
      if (entry === undefined) throw notFound(tenant, policyId);
      await this.#bucket.delete(key, { revision: entry.revision });
      return GONE;
    });
  }

  /** What a stored value says; the last good one when it says nothing (P3). */
  #stored(tenant: string, id: string, { value, revision }: Entry<string>): Policy | undefined {
    const known = this.own(tenant, id);
    if (known?.revision === revision) return known;
    try {
      return compilePolicy({ tenant, id, revision }, readStored(value));
    } catch {
      return known;
    }
  }

  #checkQuota(tenant: string): void {
    const quota = this.#options.quota ?? limits.policies;
    if (tenant === SHARED_TENANT || (this.#tenants.get(tenant)?.size ?? 0) < quota) return;
    throw new BeamlineError("quota_exceeded", `Policy quota exceeded. Maximum policies: ${quota}`, {
      details: { tenant_id: tenant, limit: quota },
    });
  }

  /** P1 and P2: changes what is there, again when someone was faster, and waits until it is here. */
  #changing(tenant: string, key: string, change: (entry: Entry<string> | undefined) => Promise<number>): Promise<void> {
    return this.#turns.run(tenant, async () => {
      let entry = this.#watch?.entries.get(key);
      for (let left = ATTEMPTS; ; left--) {
        try {
          return await this.#arrived(key, await change(entry));
        } catch (thrown) {
          const error = BeamlineError.from(thrown);
          const overtaken = error.code === "aborted" || error.code === "already_exists";
          if (!overtaken || left <= 1) throw error;
          entry = await this.#bucket.get(key);
        }
      }
    });
  }

  /** Resolves when the watch has brought a key's revision, or something newer; for `GONE` its deletion. */
  async #arrived(key: string, revision: number): Promise<void> {
    const here = this.#watch?.entries.get(key);
    if (here === undefined ? revision === GONE : here.revision >= revision) return;
    await new Promise<void>((resolve) => {
      const done = (): void => {
        clearTimeout(timer);
        this.#waiting.delete(look);
        resolve();
      };
      const look = (changed: string, now: number): void => {
        if (changed === key && now >= revision) done();
      };
      const timer = setTimeout(done, WATCH_MS);
      this.#waiting.add(look);
    });
  }

  #apply(key: string, entry: Entry<string> | undefined): void {
    try {
      const { tenant, id } = nameOfKey(key);
      if (entry === undefined) this.#drop(tenant, id);
      else this.#keep(compilePolicy({ tenant, id, revision: entry.revision }, readStored(entry.value)));
    } catch (thrown) {
      this.#options.onUnreadable?.(key, BeamlineError.from(thrown));
    }
    for (const look of this.#waiting) look(key, entry?.revision ?? GONE);
  }

  #keep(policy: Policy): void {
    let policies = this.#tenants.get(policy.tenant);
    if (policies === undefined) this.#tenants.set(policy.tenant, (policies = new Map()));
    policies.set(policy.id, policy);
    this.#options.onLoaded?.(policy.tenant);
  }

  #drop(tenant: string, id: string): void {
    const policies = this.#tenants.get(tenant);
    policies?.delete(id);
    if (policies?.size === 0) this.#tenants.delete(tenant);
  }
}

export function notFound(tenant: string, policyId: string): BeamlineError {
  return new BeamlineError("policy_not_found", "policy not found", {
    details: { tenant_id: tenant, policy_id: policyId },
  });
}

/** The document inside a stored value (BeamLine, wire form of a stored policy). */
function readStored(value: string): PolicyDocument {
  const { policy_id: _id, tenant_id: _tenant, ...document } = JSON.parse(value) as JsonObject;
  return readPolicy(document);
}
