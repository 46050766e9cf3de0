/** Follows the bucket `provider_health`, where the usage workers write what results say about providers, into this worker's book. */
import type { Bus } from "../../../bus/connect.ts";
import { Bucket, jsonCodec } from "../../../bus/keyvalue.ts";
import { watchInto, type Watch } from "../../../bus/watch.ts";
import type { ProviderHealth } from "../../../contracts/execution/health.ts";
import { alertMessage } from "../../../contracts/execution/alert.ts";
import { publishRetrying } from "../../../bus/retrying.ts";
import { tokenOf } from "../../../bus/keys.ts";
import type { BeamlineError } from "../../../contracts/errors.ts";
import { buckets } from "../../../contracts/streams.ts";
import { isObject } from "../policies/fields.ts";

const numbers = ["latency_ms", "error_rate", "cost", "successes", "failures", "consecutive_failures"] as const;

/** Every record as it is now, then every change; wait for `ready` before circuits are asked about. */
export function followHealth(
  bus: Bus,
  take: (record: ProviderHealth) => void,
  onTrouble: (error: BeamlineError) => void,
): Watch<ProviderHealth> {
  return watchInto(new Bucket(bus, buckets.providerHealth, jsonCodec<ProviderHealth>()), {
    onChange(_key, entry) {
      if (entry !== undefined && isRecord(entry.value)) take(entry.value);
    },
    onError: onTrouble,
  });
}

function isRecord(value: unknown): value is ProviderHealth {
  return (
    isObject(value) && typeof value["tenant_id"] === "string" && numbers.every((name) => Number.isFinite(value[name]))
  );
}

/** An alert that a circuit opened: one, however many workers noticed within the same minute. Throws as `publishRetrying`. */
export function alertOpened(bus: Bus, id: string, now: number, tenant: string, provider: string): Promise<unknown> {
  const alert = {
    severity: "warning",
    component: "routing",
    message: `the circuit of provider ${provider} opened`,
    metadata: { tenant_id: tenant, provider_id: provider },
  } as const;
  const key = `circuit-${tokenOf(tenant)}.${tokenOf(provider)}-${Math.floor(now / 60_000)}`;
  const { subject, msgId, body } = alertMessage(alert, id, now, key);
  return publishRetrying(bus, subject, body, { msgId });
}
