/** Alerts on `beamline.alert.v1.<severity>` (BeamLine, alerts): best effort, never in the way of what they tell about. */
import type { Bus } from "../../bus/connect.ts";
import { publish } from "../../bus/publish.ts";
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
      publish(bus, subject, body, { msgId }).catch((error: unknown) =>
        log.warn("an alert could not be published", { error }),
      );
    },
  };
}
