/**
 * Webhooks (OpenWOP, webhooks): subscriptions in a bucket, deliveries through a work queue.
 *
 * W1 Events are read from the logs by one durable consumer; a match is a delivery of its own, stored before the log is acknowledged.
 * W2 A delivery names its event: stored twice it is one, and receivers can tell.
 * W3 Addresses are judged at registration and again at delivery, where the connection goes to the address judged; redirects are failures.
 * W4 Failures come again with growing pauses and end as dead letters; four in a row rest the subscription for an hour, then one delivery tries it.
 * W5 Nothing crosses tenants: the tenant is part of every subject and key. Replays deliver nothing.
 * W6 A run that was started with a callback has its last event sent there, once and unsigned, tried again like any other.
 */
import { randomBytes } from "node:crypto";
import type { Bus } from "../../../bus/connect.ts";
import { consume, type Consumption } from "../../../bus/consume.ts";
import { keyOf, partOf } from "../../../bus/keys.ts";
import { publish } from "../../../bus/publish.ts";
import { BeamlineError } from "../../../contracts/errors.ts";
import { header } from "../../../contracts/headers.ts";
import { parseEntry, TERMINAL_EVENTS, type RunEvent } from "../../../contracts/openwop/log.ts";
import { buckets, streams } from "../../../contracts/streams.ts";
import type { Clock } from "../../../runtime/clock.ts";
import type { Egress } from "../../../runtime/egress.ts";
import type { Logger } from "../../../runtime/log.ts";
import type { RunLog } from "../log.ts";
import { Records } from "../records.ts";
import { afterFailure, afterSuccess, CLOSED, probing, standing, type Circuit } from "./webhook.circuit.ts";
import { deliveryBody, deliveryHeaders } from "./webhook.delivery.ts";

export interface Subscription extends Circuit {
  readonly webhookId: string;
  readonly tenant: string;
  readonly url: string;
  readonly events: readonly string[];
  /** Only runs with one of these tags; empty is all. */
  readonly tags: readonly string[];
  readonly secret: string;
  readonly createdAt: string;
  /** Deliveries that became dead letters since it was made or last redriven. */
  readonly deadLetters: number;
}

interface Delivery {
  readonly webhookId: string;
  readonly tenant: string;
  readonly runId: string;
  readonly event: RunEvent;
  /** Of the run: the receiver's work belongs to its trace. */
  readonly traceparent?: string;
  /** W6: where to, when no subscription says it. */
  readonly callbackUrl?: string;
}

/** In the place of a webhook's id. */
const CALLBACK = "callback";

export interface WebhookOptions {
  readonly bus: Bus;
  readonly log: RunLog;
  readonly egress: Egress;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Lets http and private addresses pass: for test hosts. */
  readonly insecure: boolean;
  /** Pauses between the tries of a delivery, milliseconds. */
  readonly backoffMs?: readonly number[];
}

/** The durable consumer that reads the logs. */
const READER = "webhooks";
/** Heard by every runs worker. */
const CHANGED_SUBJECT = "beamline.runs.v1.webhooks_changed";
const TIMEOUT_MS = 5_000;
const TRIES = 8;
const BACKOFF_MS = [1_000, 5_000, 30_000, 120_000, 600_000, 3_600_000];
const FRESH_MS = 5_000;
const REFUSED_NAMES = new Set(["localhost", "metadata", "metadata.google.internal"]);

export class Webhooks {
  readonly #options: WebhookOptions;
  readonly #records: Records<Subscription>;
  readonly #known = new Map<string, { readonly until: number; readonly list: readonly Subscription[] }>();
  readonly #unsubscribe: () => void;
  #forgotten = 0;
  #deliveries: Consumption | undefined;
  #fanOut: Promise<Consumption> | undefined;

  private constructor(options: WebhookOptions) {
    this.#options = options;
    this.#records = new Records<Subscription>(options.bus, buckets.runWebhooks);
    const changed = options.bus.subscribe(CHANGED_SUBJECT, () => this.#changed());
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
      maxDeliver: TRIES,
      backoffMs: [...(options.backoffMs ?? BACKOFF_MS)],
      handler: (payload) => webhooks.#deliver(JSON.parse(Buffer.from(payload).toString("utf8")) as Delivery),
      onEvent(event) {
        if (event.type === "dead") webhooks.#buried(event.context.subject);
      },
    });
    // Nobody has to read along before there is a subscription or a callback.
    if (await webhooks.#isWanted()) await webhooks.#start();
    return webhooks;
  }

  /** W6: judges the address and reads along from now on. Throws as `check`. */
  async expectCallback(url: string): Promise<void> {
    await this.check(url, "callbackUrl");
    await this.#start();
  }

  async #isWanted(): Promise<boolean> {
    if ((await this.#records.list()).length > 0) return true;
    const { jsm } = this.#options.bus;
    return jsm.consumers.info(streams.runs.name, READER).then(
      () => true,
      () => false,
    );
  }

  /** Refuses a URL that may not be called. Throws `webhook_url_rejected` naming the field. */
  async check(url: string, field = "url"): Promise<void> {
    const { egress, insecure } = this.#options;
    const rejected = (what: string): BeamlineError =>
      new BeamlineError("webhook_url_rejected", `${field} ${what}`, { field });
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

  /** Stores a subscription and starts delivering from now on. Under the same id it is the same one, with what is given now. */
  async register(
    tenant: string,
    webhookId: string,
    url: string,
    events: readonly string[],
    tags: readonly string[],
    secret: string | undefined,
  ): Promise<Subscription> {
    const { clock, bus } = this.#options;
    const subscription: Subscription = {
      webhookId,
      tenant,
      url,
      events,
      tags,
      secret: secret ?? randomBytes(32).toString("base64url"),
      createdAt: new Date(clock.now()).toISOString(),
      deadLetters: 0,
      ...CLOSED,
    };
    await this.#records.put([tenant, subscription.webhookId], subscription);
    bus.send(CHANGED_SUBJECT, "");
    await this.#start();
    return subscription;
  }

  async list(tenant: string): Promise<Subscription[]> {
    return (await this.#records.list(tenant)).map(({ value }) => value);
  }

  /** Whether there was such a subscription. */
  async unregister(tenant: string, webhookId: string): Promise<boolean> {
    if ((await this.#records.get(tenant, webhookId)) === undefined) return false;
    await this.#records.remove(tenant, webhookId);
    this.#options.bus.send(CHANGED_SUBJECT, "");
    this.#forget();
    return true;
  }

  /** Lets a subscription that rests or has failed be tried again at once. Throws `subscription_not_found`. */
  async revive(tenant: string, webhookId: string): Promise<Subscription> {
    const revived = await this.#change(tenant, webhookId, (now) => ({ ...now, ...CLOSED, deadLetters: 0 }));
    if (revived === undefined) throw noSubscription();
    return revived;
  }

  async stop(deadline: number): Promise<void> {
    this.#unsubscribe();
    await Promise.all([this.#fanOut?.then((fanOut) => fanOut.stop(deadline)), this.#deliveries?.stop(deadline)]);
  }

  #forget(): void {
    this.#forgotten++;
    this.#known.clear();
  }

  #changed(): void {
    this.#forget();
    this.#start().catch((thrown: unknown) =>
      this.#options.logger.warn("webhooks cannot be delivered", { error: thrown }),
    );
  }

  async #start(): Promise<void> {
    this.#fanOut ??= consume(this.#options.bus, {
      stream: streams.runs,
      durable: READER,
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
        await this.#store({ webhookId, tenant, runId, event }, record.traceparent);
      }
    }
    const last = events.find(({ type }) => TERMINAL_EVENTS.has(type));
    if (last === undefined) return;
    const record = (await this.#options.log.find(tenant, runId))?.state.record;
    if (record?.callbackUrl === undefined || record.fork?.mode === "replay") return;
    const { callbackUrl, traceparent } = record;
    await this.#store({ webhookId: CALLBACK, tenant, runId, event: last, callbackUrl }, traceparent);
  }

  /** W2. */
  async #store(delivery: Delivery, traceparent: string): Promise<void> {
    const { webhookId, tenant, runId, event } = delivery;
    const body = { ...delivery, ...(traceparent !== "" && { traceparent }) };
    await publish(this.#options.bus, `log.run_hooks.${keyOf(tenant, webhookId)}`, JSON.stringify(body), {
      msgId: `${webhookId}:${runId}:${event.sequence}`,
      headers: { [header.tenantId]: tenant },
    });
  }

  async #subscriptions(tenant: string): Promise<readonly Subscription[]> {
    const { clock } = this.#options;
    const known = this.#known.get(tenant);
    if (known !== undefined && known.until > clock.monotonic()) return known.list;
    const before = this.#forgotten;
    const list = await this.list(tenant);
    // Read while something changed, it may lack that.
    if (before === this.#forgotten) this.#known.set(tenant, { until: clock.monotonic() + FRESH_MS, list });
    return list;
  }

  async #deliver(delivery: Delivery): Promise<void> {
    const { webhookId, tenant, callbackUrl } = delivery;
    const { clock } = this.#options;
    if (callbackUrl !== undefined) return this.#send(callbackUrl, delivery, undefined);
    const kept = await this.#records.get(tenant, webhookId);
    if (kept === undefined) return;
    const subscription = kept.value;
    const { secret, url } = subscription;
    switch (standing(subscription, clock.now())) {
      case "failed":
        throw new BeamlineError("failed_precondition", `webhook ${webhookId} has failed too often`);
      case "rests":
        throw new BeamlineError("unavailable", `webhook ${webhookId} rests`);
      case "probe": {
        const claim = probing(subscription, clock.now());
        if ((await this.#records.swap([tenant, webhookId], claim, kept.revision)) === undefined)
          throw new BeamlineError("unavailable", `webhook ${webhookId} rests`);
        break;
      }
      case "go":
    }
    try {
      await this.#send(url, delivery, { webhookId, secret });
    } catch (thrown) {
      await this.#change(tenant, webhookId, (now) => afterFailure(now, clock.now()));
      throw thrown;
    }
    if (subscription.failures > 0) await this.#change(tenant, webhookId, afterSuccess);
  }

  /** W3. Throws `unavailable` or `deadline_exceeded` for whatever is wrong with the receiver. */
  async #send(
    url: string,
    { tenant, runId, event, traceparent }: Delivery,
    hook: Pick<Subscription, "webhookId" | "secret"> | undefined,
  ): Promise<void> {
    const { clock, egress } = this.#options;
    const body = deliveryBody(tenant, runId, event);
    try {
      const { status } = await egress.fetch(url, {
        method: "POST",
        headers: {
          ...deliveryHeaders(hook, event.type, body, clock.now()),
          ...(traceparent !== undefined && { traceparent }),
        },
        body,
        timeoutMs: TIMEOUT_MS,
        maxRedirects: 0,
        maxBytes: 4_096,
      });
      if (status < 200 || status >= 300)
        throw new BeamlineError("unavailable", `the receiver answered ${status}`, { details: { status } });
    } catch (thrown) {
      throw translated(thrown);
    }
  }

  /** A delivery was given up: its subscription says so. */
  #buried(subject: string): void {
    const [, , tenant, webhookId] = subject.split(".").map(partOf);
    this.#change(tenant ?? "", webhookId ?? "", (now) => ({ ...now, deadLetters: now.deadLetters + 1 })).catch(
      (thrown: unknown) => this.#options.logger.warn("a webhook's dead letter is not counted", { error: thrown }),
    );
  }

  /** Undefined when there is no such subscription. */
  async #change(
    tenant: string,
    webhookId: string,
    make: (now: Subscription) => Subscription,
  ): Promise<Subscription | undefined> {
    for (;;) {
      const kept = await this.#records.get(tenant, webhookId);
      if (kept === undefined) return undefined;
      const next = make(kept.value);
      if ((await this.#records.swap([tenant, webhookId], next, kept.revision)) !== undefined) return next;
    }
  }
}

/** An address that may not be called today may be one tomorrow: whatever is wrong with the receiver is tried again. */
function translated(thrown: unknown): BeamlineError {
  const error = BeamlineError.from(thrown);
  if (error.code === "unavailable" || error.code === "deadline_exceeded") return error;
  if (error.code === "permission_denied")
    return new BeamlineError("unavailable", "the receiver is not at a public address", { cause: thrown });
  return new BeamlineError("unavailable", "the receiver cannot be reached", { cause: thrown });
}

/** What a subscription is shown as. */
export function stateOf(
  { state, openUntil, deadLetters }: Subscription,
  now: number,
): "active" | "paused" | "failed" | "dead-lettered" {
  if (state === "failed") return "failed";
  if (openUntil > now) return "paused";
  return deadLetters > 0 ? "dead-lettered" : "active";
}

function noSubscription(): BeamlineError {
  return new BeamlineError("subscription_not_found", "there is no such webhook");
}
