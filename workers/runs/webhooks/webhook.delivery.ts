/** What a webhook is sent: the body, and the headers that sign it (OpenWOP, webhooks). */
import { createHash, createHmac } from "node:crypto";
import type { RunEvent } from "../../../contracts/openwop/log.ts";
import { VERSION } from "../../../runtime/version.ts";

/** The contract's body, with the type at the top as well, where receivers look for it. */
export function deliveryBody(tenant: string, runId: string, event: RunEvent): string {
  return JSON.stringify({ runId, type: event.type, workspaceId: tenant, event });
}

/** First 8 hex digits of the secret's SHA-256: what may be logged and shown. */
export function fingerprintOf(secret: string): string {
  return createHash("sha256").update(secret).digest("hex").slice(0, 8);
}

/** Signature v1: HMAC-SHA256 over `<timestamp>.<body>`, hex. */
export function signatureOf(secret: string, timestamp: string, body: string): string {
  return createHmac("sha256", secret).update(`${timestamp}.${body}`).digest("hex");
}

/** Every header of ours in both spellings, equal; without a subscription there is nothing to sign with. `now` in epoch milliseconds. */
export function deliveryHeaders(
  hook: { readonly webhookId: string; readonly secret: string } | undefined,
  type: string,
  body: string,
  now: number,
): Record<string, string> {
  const timestamp = String(Math.floor(now / 1_000));
  const told = {
    "Event-Type": type,
    Timestamp: timestamp,
    ...(hook !== undefined && {
      "Webhook-Id": hook.webhookId,
      Signature: `sha256=${signatureOf(hook.secret, timestamp, body)}`,
      "Signature-Algorithm": "v1",
    }),
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
