/**
 * Health of providers from results, in the bucket `provider_health`, for the routing workers.
 *
 * H1 Results are gathered and written a few times a second per provider, however many come in.
 * H2 Several usage workers may write the same provider: each folds what it saw into what is there, and tries again when another was first.
 * H3 What was gathered and not yet written when a process dies is lost: health is an estimate, and money does not depend on it.
 *    A bus that is away for a moment is waited for: results that were acknowledged before do not come again.
 */
import type { Bus } from "../../bus/connect.ts";
import { keyOf } from "../../bus/keys.ts";
import { Bucket, jsonCodec } from "../../bus/keyvalue.ts";
import { observe, type Observation, type ProviderHealth } from "../../contracts/execution/health.ts";
import { BeamlineError } from "../../contracts/errors.ts";
import { buckets } from "../../contracts/streams.ts";
import type { Logger } from "../../runtime/log.ts";
import type { Alerts } from "./alerts.ts";

/** Failures in a row at which a circuit opens unless a policy says otherwise (BeamLine, policy document). */
export const FAILURE_THRESHOLD = 5;

/** H3, milliseconds; a worker that stops meanwhile waits as long. */
const AWAY = { retryForMs: 5_000 } as const;

/** Providers kept in memory; the least recently used goes. */
const KEPT = 10_000;

interface Entry {
  readonly tenant: string;
  readonly provider: string;
  readonly waiting: Observation[];
  known: { readonly health: ProviderHealth | undefined; readonly revision: number } | undefined;
}

export interface HealthOptions {
  /** Between two writes of the same provider, milliseconds. Default 250. */
  readonly everyMs?: number;
  readonly log: Logger;
  readonly alerts: Alerts;
}

export class HealthBook {
  readonly #bucket: Bucket<ProviderHealth>;
  readonly #options: HealthOptions;
  readonly #entries = new Map<string, Entry>();
  readonly #dirty = new Set<Entry>();
  #timer: NodeJS.Timeout | undefined;
  #flushing: Promise<void> = Promise.resolve();

  constructor(bus: Bus, options: HealthOptions) {
    this.#bucket = new Bucket(bus, buckets.providerHealth, jsonCodec<ProviderHealth>());
    this.#options = options;
  }

  /** Takes note; written soon. */
  observe(tenant: string, provider: string, seen: Observation): void {
    const key = keyOf(tenant, provider);
    const entry = this.#entries.get(key) ?? { tenant, provider, waiting: [], known: undefined };
    this.#entries.delete(key);
    this.#entries.set(key, entry);
    if (this.#entries.size > KEPT) {
      const [oldest] = this.#entries.keys();
      if (oldest !== undefined) this.#entries.delete(oldest);
    }
    entry.waiting.push(seen);
    this.#dirty.add(entry);
    this.#timer ??= setTimeout(() => void this.flush(), this.#options.everyMs ?? 250);
  }

  /** Writes everything gathered so far. Never throws. */
  flush(): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const entries = [...this.#dirty];
    this.#dirty.clear();
    this.#flushing = this.#flushing.then(
      async () => void (await Promise.all(entries.map((entry) => this.#write(entry)))),
    );
    return this.#flushing;
  }

  async #write(entry: Entry): Promise<void> {
    const seen = entry.waiting.splice(0);
    if (seen.length === 0) return;
    const { tenant, provider } = entry;
    const key = keyOf(tenant, provider);
    for (let attempt = 1; attempt <= 5; attempt++) {
      try {
        entry.known ??= await this.#read(key);
        const before = entry.known.health;
        let health = before;
        for (const one of seen) health = observe(health, tenant, provider, one);
        if (health === undefined) return;
        const { revision } = entry.known;
        const next =
          revision === 0
            ? await this.#bucket.create(key, health, AWAY)
            : await this.#bucket.update(key, health, revision, AWAY);
        entry.known = { health, revision: next };
        this.#tell(before, health);
        return;
      } catch (thrown) {
        entry.known = undefined; // H2
        const error = BeamlineError.from(thrown);
        if (error.code === "aborted" || error.code === "already_exists") continue;
        return this.#options.log.warn("the health of a provider could not be written", {
          provider_id: provider,
          tenant_id: tenant,
          error,
        });
      }
    }
  }

  #tell(before: ProviderHealth | undefined, now: ProviderHealth): void {
    const { tenant_id, provider_id } = now;
    const wasDown = (before?.consecutive_failures ?? 0) >= FAILURE_THRESHOLD;
    const isDown = now.consecutive_failures >= FAILURE_THRESHOLD;
    if (wasDown === isDown) return;
    const metadata = {
      tenant_id,
      provider_id,
      consecutive_failures: now.consecutive_failures,
      error_rate: now.error_rate,
      last_error_code: now.last_error_code,
    };
    const message = isDown
      ? `provider ${provider_id} failed ${now.consecutive_failures} times in a row`
      : `provider ${provider_id} answers again`;
    const key = `provider-${keyOf(tenant_id, provider_id)}-${isDown ? "down" : "up"}-${isDown ? now.last_success_ms : now.last_failure_ms}`;
    this.#options.alerts.raise({ severity: isDown ? "warning" : "info", component: "usage", message, metadata }, key);
  }

  async #read(key: string): Promise<{ health: ProviderHealth | undefined; revision: number }> {
    const entry = await this.#bucket.get(key);
    return { health: entry?.value, revision: entry?.revision ?? 0 };
  }
}
