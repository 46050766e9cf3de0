/** Artifacts, webhooks, audit. */
import { permit, type Answer, type Asker } from "../caller.ts";
import { bodyOf, invalid, text, texts } from "../body.ts";
import type { Artifact } from "../artifacts.ts";
import { BeamlineError } from "../../../contracts/errors.ts";
import { isEventType } from "../../../contracts/openwop/eventtypes.ts";
import type { Json } from "../../../contracts/openwop/json.ts";
import type { RunsPorts } from "../ports.ts";
import { fingerprintOf } from "../webhooks/webhook.delivery.ts";
import { stateOf, type Subscription } from "../webhooks/webhooks.ts";

/** `GET /v1/runs/{id}/artifacts/{aid}`. Throws `artifact_not_found`, also for a run that is not there. */
export async function getArtifact(
  ports: RunsPorts,
  asker: Asker,
  runId: string,
  artifactId: string,
): Promise<Artifact> {
  permit(asker, "artifacts:read");
  return ports.artifacts.get(asker.tenant, runId, artifactId);
}

/** The same as JSON: text as it is, other content in base64. */
export async function artifactAnswer(ports: RunsPorts, asker: Asker, runId: string, id: string): Promise<Answer> {
  const { artifactId, contentType, content } = await getArtifact(ports, asker, runId, id);
  const bytes = Buffer.from(content);
  const readable = /^text\/|json|xml/.test(contentType);
  const body = {
    artifactId,
    runId,
    contentType,
    size: bytes.length,
    encoding: readable ? "utf-8" : "base64",
    content: bytes.toString(readable ? "utf8" : "base64"),
  };
  return { status: 200, body };
}

/** `POST /v1/webhooks`. The secret is shown once; a caller may bring its own. */
export async function registerWebhook(ports: RunsPorts, asker: Asker, given: unknown): Promise<Answer> {
  permit(asker, "webhooks:manage");
  return ports.idempotency.once(asker, "webhooks.register", given, async ({ id: webhookId }) => {
    const body = bodyOf(
      given,
      {
        url: text(2_048, 1),
        events: texts(100, text(128, 1)),
        tenantId: text(256),
        tags: texts(100, text(256, 1)),
        secret: text(512, 8),
      },
      ["url", "events"],
    );
    const events = body["events"] as readonly string[];
    if (events.length === 0) throw invalid("events", "must name at least one event");
    events.forEach((name, at) => {
      if (!isEventType(name)) throw invalid(`events[${at}]`, "is not the name of an event");
    });
    const { tenantId } = body;
    if (tenantId !== undefined && tenantId !== asker.tenant)
      throw new BeamlineError("forbidden", "tenantId is not the tenant of the credential", { field: "tenantId" });
    const url = String(body["url"]);
    await ports.webhooks.check(url);
    const { secret } = await ports.webhooks.register(
      asker.tenant,
      webhookId,
      url,
      events,
      (body["tags"] ?? []) as readonly string[],
      body["secret"] as string | undefined,
    );
    await ports.audit.record(asker, "webhook.registered", webhookId, { secretFingerprint: fingerprintOf(secret) });
    return { status: 201, body: { webhookId, secret, secretFingerprint: fingerprintOf(secret) } };
  });
}

/** Our route `GET /v1/webhooks`: without the secrets. */
export async function listWebhooks(ports: RunsPorts, asker: Asker): Promise<Answer> {
  permit(asker, "webhooks:manage");
  return { status: 200, body: { webhooks: (await ports.webhooks.list(asker.tenant)).map((one) => shown(ports, one)) } };
}

function shown({ clock }: RunsPorts, subscription: Subscription): Json {
  const { webhookId, url, events, tags, secret, createdAt, failures, openUntil, deadLetters } = subscription;
  return {
    webhookId,
    url,
    events,
    tags,
    secretFingerprint: fingerprintOf(secret),
    createdAt,
    state: stateOf(subscription, clock.now()),
    failures,
    deadLetters,
    ...(openUntil > 0 && { restsUntil: new Date(openUntil).toISOString() }),
  };
}

/** `DELETE /v1/webhooks/{id}`. */
export async function unregisterWebhook(
  ports: RunsPorts,
  asker: Asker,
  webhookId: string,
  query: Json,
): Promise<Answer> {
  permit(asker, "webhooks:manage");
  return ports.idempotency.once(asker, "webhooks.unregister", { webhookId }, async ({ again }) => {
    const { tenantId } = query;
    if (tenantId !== undefined && tenantId !== asker.tenant)
      throw new BeamlineError("subscription_not_found", "there is no such webhook");
    // What is gone may have been removed by this very call, which did not live to tell.
    if (!(await ports.webhooks.unregister(asker.tenant, webhookId)) && !again)
      throw new BeamlineError("subscription_not_found", "there is no such webhook");
    await ports.audit.record(asker, "webhook.unregistered", webhookId, {});
    return { status: 204, body: {} };
  });
}

/** Our route `POST /v1/webhooks/{id}/redrive`: tries a subscription that rests again; its dead letters are redriven with the others. */
export async function redriveWebhook(ports: RunsPorts, asker: Asker, webhookId: string): Promise<Answer> {
  permit(asker, "webhooks:manage");
  return ports.idempotency.once(asker, "webhooks.redrive", { webhookId }, async () => {
    const subscription = await ports.webhooks.revive(asker.tenant, webhookId);
    await ports.audit.record(asker, "webhook.revived", webhookId, {});
    return { status: 200, body: shown(ports, subscription) };
  });
}

/** `GET /v1/audit/verify?fromSeq=&toSeq=`. */
export async function verifyAudit(ports: RunsPorts, asker: Asker, query: Json): Promise<Answer> {
  permit(asker, "audit:read");
  const [from, to] = (["fromSeq", "toSeq"] as const).map((name) => {
    const given = query[name];
    if (typeof given !== "string" || !/^\d{1,15}$/.test(given))
      throw invalid(name, "must be a whole number of at least 0");
    return Number(given);
  });
  if (from === undefined || to === undefined || to < from) throw invalid("toSeq", "must not be less than fromSeq");
  return { status: 200, body: await ports.audit.verify(from, to) };
}
