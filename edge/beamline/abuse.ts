/**
 * Abuse detection (BeamLine, REST gateway), off unless switched on: a tenant with far too many requests, keys or addresses, and an address that tries many
 * tenants, are refused for a while; payloads that are suspiciously small or heavy are told, and served. Counted per edge, in memory.
 */

export interface AbuseRules {
  /** Payloads below and beyond these are told, bytes. */
  readonly minPayloadBytes: number;
  readonly heavyPayloadBytes: number;
  /** Per tenant and minute. */
  readonly requestsPerMinute: number;
  /** Different ones of a tenant, inside the retention. */
  readonly keysPerTenant: number;
  readonly addressesPerTenant: number;
  readonly tenantsPerAddress: number;
  /** How long things are remembered, and how long who did them is refused, milliseconds. */
  readonly retentionMs: number;
}

export const abuseRules: AbuseRules = {
  minPayloadBytes: 10,
  heavyPayloadBytes: 512 * 1024,
  requestsPerMinute: 500,
  keysPerTenant: 10,
  addressesPerTenant: 10,
  tenantsPerAddress: 20,
  retentionMs: 5 * 60_000,
};

export type AbuseKind =
  | "payload_too_small"
  | "payload_heavy"
  | "request_flood"
  | "key_rotation"
  | "address_rotation"
  | "tenant_hopping"
  | "blocked";

export interface Seen {
  /** Empty when nobody named one. */
  readonly tenant: string;
  readonly address: string;
  /** Of the credential, never the credential; empty without one. */
  readonly key: string;
  /** Undefined for requests without a body. */
  readonly payloadBytes: number | undefined;
}

export interface Finding {
  readonly kind: AbuseKind;
  /** Set when the request is refused. */
  readonly retryAfterSeconds?: number;
}

interface Page {
  /** When each different thing was seen last. */
  readonly keys: Map<string, number>;
  readonly addresses: Map<string, number>;
  readonly tenants: Map<string, number>;
  minute: number;
  requests: number;
  blockedUntil: number;
  touched: number;
}

/** Tenants and addresses remembered at most; beyond it those seen longest ago are forgotten. */
const MOST = 20_000;

export class AbuseWatch {
  readonly #rules: AbuseRules;
  readonly #now: () => number;
  /** Least recently seen first. */
  readonly #pages = new Map<string, Page>();

  /** @param now epoch milliseconds */
  constructor(rules: AbuseRules, now: () => number) {
    this.#rules = rules;
    this.#now = now;
  }

  /** Takes a request in; what is wrong with it, refusals first. */
  look({ tenant, address, key, payloadBytes }: Seen): Finding[] {
    const { minPayloadBytes, heavyPayloadBytes, keysPerTenant, addressesPerTenant, tenantsPerAddress } = this.#rules;
    const found: Finding[] = [];
    const from = this.#page(`address ${address}`);
    const owner = tenant === "" ? undefined : this.#page(`tenant ${tenant}`);
    for (const page of [from, owner]) {
      const left = (page?.blockedUntil ?? 0) - this.#now();
      if (left > 0) return [{ kind: "blocked", retryAfterSeconds: Math.ceil(left / 1_000) }];
    }
    if (owner !== undefined) {
      if (this.#countIn(from.tenants, tenant) > tenantsPerAddress) found.push(this.#block(from, "tenant_hopping"));
      if (key !== "" && this.#countIn(owner.keys, key) > keysPerTenant) found.push(this.#block(owner, "key_rotation"));
      if (this.#countIn(owner.addresses, address) > addressesPerTenant)
        found.push(this.#block(owner, "address_rotation"));
      if (this.#flooded(owner)) found.push(this.#block(owner, "request_flood"));
    }
    if (payloadBytes !== undefined && payloadBytes < minPayloadBytes) found.push({ kind: "payload_too_small" });
    if (payloadBytes !== undefined && payloadBytes > heavyPayloadBytes) found.push({ kind: "payload_heavy" });
    return found;
  }

  #flooded(page: Page): boolean {
    const minute = Math.floor(this.#now() / 60_000);
    if (page.minute !== minute) {
      page.minute = minute;
      page.requests = 0;
    }
    return ++page.requests > this.#rules.requestsPerMinute;
  }

  #block(page: Page, kind: AbuseKind): Finding {
    page.blockedUntil = this.#now() + this.#rules.retentionMs;
    return { kind, retryAfterSeconds: Math.ceil(this.#rules.retentionMs / 1_000) };
  }

  /** How many different ones were seen inside the retention, this one included. */
  #countIn(seen: Map<string, number>, name: string): number {
    const now = this.#now();
    seen.delete(name);
    seen.set(name, now);
    for (const [other, at] of seen) {
      if (now - at <= this.#rules.retentionMs) break;
      seen.delete(other);
    }
    return seen.size;
  }

  #page(name: string): Page {
    const now = this.#now();
    const page = this.#pages.get(name) ?? {
      keys: new Map<string, number>(),
      addresses: new Map<string, number>(),
      tenants: new Map<string, number>(),
      minute: 0,
      requests: 0,
      blockedUntil: 0,
      touched: now,
    };
    page.touched = now;
    this.#pages.delete(name);
    this.#pages.set(name, page);
    for (const [other, { touched }] of this.#pages) {
      if (this.#pages.size <= MOST && now - touched <= this.#rules.retentionMs) break;
      this.#pages.delete(other);
    }
    return page;
  }
}
