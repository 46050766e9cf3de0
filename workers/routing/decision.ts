/** What a decision is, and how it is put into words. */

/** Reasons a decision is made for (BeamLine, reason vocabulary), each with its priority. */
export const priorities = {
  sticky: 100,
  weighted: 50,
  retry: 50,
  best_score: 50,
  fallback: 25,
  circuit_breaker_fallback: 20,
} as const;

export type Reason = keyof typeof priorities;

/** A `RouteDecision` as plain data, and what only the envelope of the extended forms carries. */
export interface Decision {
  readonly provider_id: string;
  readonly reason: Reason;
  readonly priority: number;
  readonly expected_latency_ms: number;
  readonly expected_cost: number;
  readonly metadata: Readonly<Record<string, string>>;
  readonly policy_id: string;
  /** Session the provider was kept for. */
  readonly sticky_key: string | undefined;
  /** When the session will have been forgotten unless it is used again, epoch milliseconds. */
  readonly expires_at_ms: number | undefined;
}

/** A decision as the two texts replies are made of. */
export interface Words {
  /** `RouteDecision` of the seed form. All five fields are always there. */
  readonly bare: string;
  /** The `decision` of the envelope. */
  readonly enveloped: string;
}

/** A decision with its words. */
export interface Spoken extends Words {
  readonly decision: Decision;
}

export function speak(decision: Decision): Spoken {
  const {
    provider_id,
    reason,
    priority,
    expected_latency_ms,
    expected_cost,
    metadata,
    policy_id,
    sticky_key,
    expires_at_ms,
  } = decision;
  const bare = { provider_id, reason, priority, expected_latency_ms, expected_cost, metadata };
  const fallback_used = reason === "fallback" || reason === "circuit_breaker_fallback";
  return {
    decision,
    bare: JSON.stringify(bare),
    enveloped: JSON.stringify({ ...bare, policy_id, fallback_used, sticky_key, expires_at_ms }),
  };
}
