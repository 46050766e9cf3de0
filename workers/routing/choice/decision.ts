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
  /** The same without the session: what `get_decision` tells, and one for many requests. */
  readonly sessionless: Words;
}

export function speak(decision: Decision): Spoken {
  return new Said(decision);
}

/** The same decision for a session: what the seed form is told does not change. */
export function forSession(spoken: Spoken, sticky_key: string, expires_at_ms: number): Spoken {
  return new Said({ ...spoken.decision, sticky_key, expires_at_ms }, spoken);
}

/** Put into words when somebody listens: most requests need one of the two texts. */
class Said implements Spoken {
  readonly decision: Decision;
  readonly #same: Spoken | undefined;
  #bare: string | undefined;
  #enveloped: string | undefined;

  /** @param same one whose bare words are the same */
  constructor(decision: Decision, same?: Spoken) {
    this.decision = decision;
    this.#same = same;
  }

  get sessionless(): Words {
    return this.#same ?? this;
  }

  get bare(): string {
    return (this.#bare ??= this.#same?.bare ?? JSON.stringify(bareOf(this.decision)));
  }

  get enveloped(): string {
    if (this.#enveloped !== undefined) return this.#enveloped;
    const { reason, policy_id, sticky_key, expires_at_ms } = this.decision;
    const fallback_used = reason === "fallback" || reason === "circuit_breaker_fallback";
    const more = JSON.stringify({ policy_id, fallback_used, sticky_key, expires_at_ms });
    return (this.#enveloped = `${this.bare.slice(0, -1)},${more.slice(1)}`);
  }
}

function bareOf({
  provider_id,
  reason,
  priority,
  expected_latency_ms,
  expected_cost,
  metadata,
}: Decision): Omit<Decision, "policy_id" | "sticky_key" | "expires_at_ms"> {
  return { provider_id, reason, priority, expected_latency_ms, expected_cost, metadata };
}
