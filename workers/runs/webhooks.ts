/**
 * Webhooks (OpenWOP, webhooks): subscriptions in a bucket, deliveries through a work queue.
 *
 * W1 Events are read from the logs by one durable consumer; a match is a delivery of its own, stored before the log is acknowledged.
 * W2 A delivery names its event: stored twice it is one, and receivers can tell.
 * W3 Addresses are judged at registration and again at delivery, where the connection goes to the address judged; redirects are failures.
 * W4 Failures come again with growing pauses and end as dead letters; four in a row rest the subscription for an hour.
 * W5 Nothing crosses tenants: the tenant is part of every subject and key. Replays deliver nothing.
 */
import { createHash, createHmac, randomBytes } from "node:crypto";
import type { Bus } from "../../bus/connect.ts";
import { consume, type Consumption } from "../../bus/consume.ts";
import { keyOf, partOf } from "../../bus/keys.ts";
import { publish } from "../../bus/publish.ts";
import { BeamlineError } from "../../contracts/errors.ts";
import { parseEntry, type RunEvent } from "../../contracts/openwop/log.ts";
import { buckets, streams } from "../../contracts/streams.ts";
import type { Clock } from "../../runtime/clock.ts";
import type { Egress } from "../../runtime/egress.ts";
import type { Ids } from "../../runtime/ids.ts";
import type { Logger } from "../../runtime/log.ts";
import { VERSION } from "../../runtime/version.ts";
import type { RunLog } from "./log.ts";
import { Records } from "./records.ts";

export interface Subscription {
  readonly webhookId: string;
  readonly tenant: string;
  readonly url: string;
  readonly events: readonly string[];
  /** Only runs with one of these tags; empty is all. */
  readonly tags: readonly string[];
  readonly secret: string;
  readonly createdAt: string;
  readonly state: "active" | "failed";
  /** Failures in a row. */
  readonly failures: number;
  /** Failures in the current week, and when it began. */
  readonly weekFailures: number;
  readonly weekStart: number;
  /** Epoch milliseconds until which nothing is tried. */
  readonly openUntil: number;
}

interface Delivery {
  readonly webhookId: string;
  readonly tenant: string;
  readonly runId: string;
  readonly event: RunEvent;
}

export interface WebhookOptions {
  readonly bus: Bus;
  readonly log: RunLog;
  readonly egress: Egress;
  readonly clock: Clock;
  readonly ids: Ids;
  readonly logger: Logger;
  /** Lets http and private addresses pass: for test hosts. */
  readonly insecure: boolean;
}

/** Heard by every runs worker. */
const CHANGED_SUBJECT = "beamline.runs.v1.webhooks_changed";
const TIMEOUT_MS = 5_000;
const BREAK_AFTER = 4;
const REST_MS = 60 * 60_000;
const FAIL_AFTER = 100;
const WEEK_MS = 7 * 24 * 60 * 60_000;
const FRESH_MS = 5_000;
const REFUSED_NAMES = new Set(["localhost", "metadata", "metadata.google.internal"]);

export class Webhooks {
  readonly #options: WebhookOptions;
  readonly #records: Records<Subscription>;
  readonly #known = new Map<string, { readonly until: number; readonly list: readonly Subscription[] }>();
  readonly #unsubscribe: () => void;
  #deliveries: Consumption | undefined;
  #fanOut: Promise<Consumption> | undefined;

  private constructor(options: WebhookOptions) {
    this.#options = options;
    this.#records = new Records<Subscription>(options.bus, buckets.runWebhooks);
    const changed = options.bus.nc.subscribe(CHANGED_SUBJECT, { callback: () => this.#changed() });
    this.#unsubscribe = () => changed.unsubscribe();
  }

  static async open(options: WebhookOptions): Promise<Webhooks> {
    const webhooks = new Webhooks(options);
    webhooks.#deliveries = await consume(options.bus, {
      stream: streams.runHooks,
      durable: "deliveries",
      filterSubjects: ["log.run_hooks.>"],
      concurrency: 32,
      ackWaitMs: 30_000,
      maxDeliver: 8,
      backoffMs: [1_000, 5_000, 30_000, 120_000, 600_000, 3_600_000],
      handler: (payload) => webhooks.#deliver(JSON.parse(Buffer.from(payload).toString("utf8")) as Delivery),
    });
    // Without subscriptions nobody has to read along.
    if ((await webhooks.#records.list()).length > 0) await webhooks.#start();
    return webhooks;
  }

  /** Refuses a URL that may not be called. Throws `webhook_url_rejected`, `validation_error`. */
  async check(url: string): Promise<void> {
    const { egress, insecure } = this.#options;
    const parsed = URL.parse(url);
    if (parsed === null) throw rejected("is not a URL");
    if (parsed.protocol !== "https:" && !(insecure && parsed.protocol === "http:")) throw rejected("must be https");
    if (parsed.username !== "" || parsed.password !== "") throw rejected("must not carry credentials");
    if (!insecure && REFUSED_NAMES.has(parsed.hostname.toLowerCase().replace(/\.$/, "")))
      throw rejected("is not a public address");
    const port = parsed.port === "" ? (parsed.protocol === "https:" ? "443" : "80") : parsed.port;
    try {
      await egress.checkAddress(`${parsed.hostname}:${port}`);
    } catch (thrown) {
      const { code } = BeamlineError.from(thrown);
      // A name that does not resolve now may do so later; delivery looks again.
      if (code !== "unavailable") throw rejected("is not a public address");
    }
  }

  /** Stores a subscription and starts delivering from now on. */
  async register(
    tenant: string,
    url: string,
    events: readonly string[],
    tags: readonly string[],
    secret: string | undefined,
  ): Promise<Subscription> {
    const { ids, clock, bus } = this.#options;
    const subscription: Subscription = {
      webhookId: ids.v7(),
      tenant,
      url,
      events,
      tags,
      secret: secret ?? randomBytes(32).toString("base64url"),
      createdAt: new Date(clock.now()).toISOString(),
      state: "active",
      failures: 0,
      weekFailures: 0,
      weekStart: clock.now(),
      openUntil: 0,
    };
    await this.#records.put([tenant, subscription.webhookId], subscription);
    bus.send(CHANGED_SUBJECT, "");
    await this.#start();
    return subscription;
  }

  async list(tenant: string): Promise<Subscription[]> {
    return (await this.#records.list(tenant)).map(({ value }) => value);
  }

  /** Throws `subscription_not_found`. */
  async unregister(tenant: string, webhookId: string): Promise<void> {
    if ((await this.#records.get(tenant, webhookId)) === undefined) throw noSubscription();
    await this.#records.remove(tenant, webhookId);
    this.#options.bus.send(CHANGED_SUBJECT, "");
    this.#known.clear();
  }

  /** Lets a subscription that rests or has failed be tried again at once. Throws `subscription_not_found`. */
  async revive(tenant: string, webhookId: string): Promise<Subscription> {
    const kept = await this.#records.get(tenant, webhookId);
    if (kept === undefined) throw noSubscription();
    const revived: Subscription = { ...kept.value, state: "active", failures: 0, weekFailures: 0, openUntil: 0 };
    await this.#records.put([tenant, webhookId], revived);
    return revived;
  }

  async stop(deadline: number): Promise<void> {
    this.#unsubscribe();
    await (await this.#fanOut)?.stop(deadline);
    await this.#deliveries?.stop(deadline);
  }

  #changed(): void {
    this.#known.clear();
    this.#start().catch((thrown: unknown) =>
      this.#options.logger.warn("webhooks cannot be delivered", { error: thrown }),
    );
  }

  async #start(): Promise<void> {
    this.#fanOut ??= consume(this.#options.bus, {
      stream: streams.runs,
      durable: "webhooks",
      filterSubjects: ["log.runs.>"],
      concurrency: 64,
      ackWaitMs: 30_000,
      handler: async (payload, { subject }) => {
        const [, , tenant, runId] = subject.split(".");
        await this.#match(
          partOf(tenant ?? ""),
          partOf(runId ?? ""),
          parseEntry(Buffer.from(payload).toString("utf8")).events,
        );
      },
    });
    try {
      await this.#fanOut;
    } catch (thrown) {
      this.#fanOut = undefined;
      throw thrown;
    }
  }

  /** W1. */
  async #match(tenant: string, runId: string, events: readonly RunEvent[]): Promise<void> {
    const subscriptions = await this.#subscriptions(tenant);
    for (const subscription of subscriptions) {
      for (const event of events) {
        if (!subscription.events.includes(event.type) || event.timestamp < subscription.createdAt) continue;
        const record = (await this.#options.log.find(tenant, runId))?.state.record;
        if (record === undefined || record.fork?.mode === "replay") continue;
        if (subscription.tags.length > 0 && !record.tags.some((tag) => subscription.tags.includes(tag))) continue;
        const { webhookId } = subscription;
        const delivery: Delivery = { webhookId, tenant, runId, event };
        await publish(this.#options.bus, `log.run_hooks.${keyOf(tenant, webhookId)}`, JSON.stringify(delivery), {
          msgId: `${webhookId}:${runId}:${event.sequence}`,
        });
      }
    }
  }

  async #subscriptions(tenant: string): Promise<readonly Subscription[]> {
    const { clock } = this.#options;
    const known = this.#known.get(tenant);
    if (known !== undefined && known.until > clock.monotonic()) return known.list;
    const list = await this.list(tenant);
    this.#known.set(tenant, { until: clock.monotonic() + FRESH_MS, list });
    return list;
  }

  async #deliver({ webhookId, tenant, runId, event }: Delivery): Promise<void> {
    const { clock, egress } = this.#options;
    const kept = await this.#records.get(tenant, webhookId);
    if (kept === undefined) return;
    const subscription = kept.value;
    if (subscription.state === "failed")
      throw new BeamlineError("failed_precondition", `webhook ${webhookId} has failed too often`);
    if (subscription.openUntil > clock.now()) throw new BeamlineError("unavailable", `webhook ${webhookId} rests`);
    const body = JSON.stringify({ runId, type: event.type, workspaceId: tenant, event });
    try {
      const { status } = await egress.fetch(subscription.url, {
        method: "POST",
        headers: headersFor(subscription, event, body, clock.now()),
        body,
        timeoutMs: TIMEOUT_MS,
        maxRedirects: 0,
        maxBytes: 4_096,
      });
      if (status < 200 || status >= 300)
        throw new BeamlineError("unavailable", `the receiver answered ${status}`, { details: { status } });
    } catch (thrown) {
      await this.#failed(tenant, webhookId);
      const error = BeamlineError.from(thrown);
      throw error.code === "internal"
        ? new BeamlineError("unavailable", "the receiver cannot be reached", { cause: thrown })
        : error;
    }
    if (subscription.failures > 0)
      await this.#records.swap([tenant, webhookId], { ...subscription, failures: 0, openUntil: 0 }, kept.revision);
  }

  /** W4. */
  async #failed(tenant: string, webhookId: string): Promise<void> {
    const now = this.#options.clock.now();
    for (;;) {
      const kept = await this.#records.get(tenant, webhookId);
      if (kept === undefined) return;
      const { value } = kept;
      const sameWeek = now - value.weekStart < WEEK_MS;
      const failures = value.failures + 1;
      const weekFailures = (sameWeek ? value.weekFailures : 0) + 1;
      const next: Subscription = {
        ...value,
        failures,
        weekFailures,
        weekStart: sameWeek ? value.weekStart : now,
        openUntil: failures >= BREAK_AFTER ? now + REST_MS : 0,
        state: weekFailures >= FAIL_AFTER ? "failed" : "active",
      };
      if ((await this.#records.swap([tenant, webhookId], next, kept.revision)) !== undefined) return;
    }
  }
}

/** First 8 hex digits of the secret's SHA-256: what may be logged and shown. */
export function fingerprintOf(secret: string): string {
  return createHash("sha256").update(secret).digest("hex").slice(0, 8);
}

/** Signature v1: HMAC-SHA256 over `<timestamp>.<body>`, hex. */
export function signatureOf(secret: string, timestamp: string, body: string): string {
  return createHmac("sha256", secret).update(`${timestamp}.${body}`).digest("hex");
}

function headersFor(
  { webhookId, secret }: Subscription,
  event: RunEvent,
  body: string,
  now: number,
): Record<string, string> {
  const timestamp = String(Math.floor(now / 1_000));
  const told = {
    "Webhook-Id": webhookId,
    "Event-Type": event.type,
    Timestamp: timestamp,
    Signature: `sha256=${signatureOf(secret, timestamp, body)}`,
    "Signature-Algorithm": "v1",
  };
  const headers: Record<string, string> = {
    "content-type": "application/json",
    "user-agent": `openwop-webhook-dispatcher/${VERSION}`,
  };
  for (const [name, value] of Object.entries(told)) {
    headers[`X-openwop-${name}`] = value;
    headers[`OpenWOP-${name}`] = value;
  }
  return headers;
}

function rejected(what: string): BeamlineError {
  return new BeamlineError("webhook_url_rejected", `url ${what}`, { field: "url" });
}

function noSubscription(): BeamlineError {
  return new BeamlineError("subscription_not_found", "there is no such webhook");
}
