/**
 * Alerts on `beamline.alert.v1.<severity>` (BeamLine, alerts): never in the way of what they tell about. A bus that is away, which is when there is much
 * to tell, is waited for; what a process that ends has not told by then is lost.
 */
import type { Bus } from "../../bus/connect.ts";
import { publishRetrying } from "../../bus/retrying.ts";
import { alertMessage, type Alert } from "../../contracts/execution/alert.ts";
import type { Logger } from "../../runtime/log.ts";

export interface Alerts {
  /** `key` names what happened: the same thing told twice, by whichever process, is one alert. */
  raise(alert: Alert, key: string): void;
}

export function busAlerts(bus: Bus, log: Logger, newId: () => string, now: () => number): Alerts {
  return {
    raise(alert, key) {
      const { subject, msgId, body } = alertMessage(alert, newId(), now(), key);
      log.warn(alert.message, { alert: key, severity: alert.severity });
      publishRetrying(bus, subject, body, { msgId }).catch((error: unknown) =>
        log.warn("an alert could not be published", { error }),
      );
    },
  };
}
