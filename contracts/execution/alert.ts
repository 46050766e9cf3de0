/** Something an operator should know (BeamLine, alerts). */
export type Severity = "critical" | "warning" | "info";

export interface Alert {
  readonly severity: Severity;
  /** Part of the system that noticed: `usage`, `routing`. */
  readonly component: string;
  /** One sentence for people. */
  readonly message: string;
  /** Facts for machines; no secrets. */
  readonly metadata: Readonly<Record<string, unknown>>;
}

/** The message for JetStream. `key` names what happened: the same thing noticed by several processes becomes one alert. */
export function alertMessage(
  alert: Alert,
  id: string,
  nowMs: number,
  key: string,
): { subject: string; msgId: string; body: string } {
  const { severity, ...rest } = alert;
  const body = { alert_id: id, severity, ...rest, timestamp: new Date(nowMs).toISOString() };
  return { subject: `beamline.alert.v1.${severity}`, msgId: `alert-${key}`, body: JSON.stringify(body) };
}
