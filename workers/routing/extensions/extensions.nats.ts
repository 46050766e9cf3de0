/**
 * The registry of extensions: the bucket `extensions` is the truth, watched into memory by every routing worker.
 * One that belongs to the shared tenant `*` serves everybody who has none of that id.
 */
import type { Bus } from "../../../bus/connect.ts";
import { keyOf, partsOf } from "../../../bus/keys.ts";
import { Bucket, jsonCodec, type Entry } from "../../../bus/keyvalue.ts";
import { watchInto, type Watch } from "../../../bus/watch.ts";
import { BeamlineError } from "../../../contracts/errors.ts";
import { buckets } from "../../../contracts/streams.ts";
import { until } from "../arrival.ts";
import { MAX_PER_TENANT, readExtension, type Extension } from "./extension.ts";
import { SHARED_TENANT } from "../policies/policystore.ts";
import type { Extensions, OwnedExtension } from "../ports.ts";
import { Turns } from "../shared/turns.ts";

export interface RegistryOptions {
  /** Told of records that cannot be read, which stay as they were, and of a watch that is behind. */
  readonly onTrouble?: (error: BeamlineError) => void;
}

export class ExtensionRegistry implements Extensions {
  readonly #bucket: Bucket<unknown>;
  readonly #options: RegistryOptions;
  readonly #records = new Map<string, OwnedExtension>();
  /** Changes of a tenant wait for one another: the quota counts what was there before. */
  readonly #turns = new Turns();
  #watch: Watch<unknown> | undefined;

  constructor(bus: Bus, options: RegistryOptions = {}) {
    this.#bucket = new Bucket(bus, buckets.extensions, jsonCodec<unknown>());
    this.#options = options;
  }

  /** Loads everything and follows every change. */
  async open(): Promise<void> {
    const onError = this.#options.onTrouble;
    this.#watch = watchInto(this.#bucket, {
      onChange: (key, entry) => this.#apply(key, entry),
      ...(onError && { onError }),
    });
    await this.#watch.ready;
  }

  close(): void {
    this.#watch?.stop();
  }

  find(tenant: string, id: string): OwnedExtension | undefined {
    return this.#records.get(keyOf(tenant, id)) ?? this.#records.get(keyOf(SHARED_TENANT, id));
  }

  /** The tenant's own, or everybody's, ordered by id. */
  list(tenant?: string): OwnedExtension[] {
    const mine = [...this.#records.values()].filter((one) => tenant === undefined || one.tenant === tenant);
    return mine.sort((a, b) => (a.extension.id < b.extension.id ? -1 : 1));
  }

  /** Creates or replaces. Throws `quota_exceeded`, `unavailable`. */
  put(tenant: string, extension: Extension): Promise<void> {
    const key = keyOf(tenant, extension.id);
    return this.#turns.run(tenant, async () => {
      if (!this.#records.has(key) && this.list(tenant).length >= MAX_PER_TENANT)
        throw new BeamlineError("quota_exceeded", `Extension quota exceeded. Maximum extensions: ${MAX_PER_TENANT}`, {
          details: { tenant_id: tenant, limit: MAX_PER_TENANT },
        });
      const revision = await this.#bucket.put(key, extension);
      await until(() => (this.#watch?.entries.get(key)?.revision ?? 0) >= revision);
    });
  }

  /** Removes. Throws `extension_not_found`. */
  delete(tenant: string, id: string): Promise<void> {
    const key = keyOf(tenant, id);
    return this.#turns.run(tenant, async () => {
      if (!this.#records.has(key)) throw noExtension(id, tenant);
      await this.#bucket.delete(key);
      await until(() => !this.#records.has(key));
    });
  }

  #apply(key: string, entry: Entry<unknown> | undefined): void {
    const [tenant = "", id = ""] = partsOf(key);
    if (entry === undefined) this.#records.delete(key);
    else this.#records.set(key, { tenant, extension: { ...readExtension(entry.value), id } });
  }
}

export function noExtension(id: string, tenant: string, type = ""): BeamlineError {
  return new BeamlineError("extension_not_found", `${type === "" ? "" : `${type} `}extension ${id} is not registered`, {
    details: { extension_id: id, tenant_id: tenant },
  });
}
