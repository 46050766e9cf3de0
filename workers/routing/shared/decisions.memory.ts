/** Decisions of this process by message id, the latest so many. What another worker decided, or what is older, is not found here. */
import type { Words } from "../choice/decision.ts";
import type { Decisions } from "../ports.ts";
import { Recent } from "./recent.ts";

interface Entry {
  readonly tenant: string;
  decision: Words;
  /** Decisions of other tenants that used the same id. */
  others: Map<string, Words> | undefined;
}

export class RecentDecisions implements Decisions {
  readonly #entries: Recent<Entry>;

  /** @param limit message ids kept at least */
  constructor(limit = 20_000) {
    this.#entries = new Recent(limit);
  }

  remember(tenant: string, messageId: string, decision: Words): void {
    const known = this.#entries.get(messageId);
    if (known === undefined) this.#entries.set(messageId, { tenant, decision, others: undefined });
    else if (known.tenant === tenant) known.decision = decision;
    else (known.others ??= new Map()).set(tenant, decision);
  }

  recall(tenant: string | undefined, messageId: string): string | undefined {
    const entry = this.#entries.get(messageId);
    if (entry === undefined) return undefined;
    if (tenant === undefined) return entry.others === undefined ? entry.decision.bare : undefined;
    return (entry.tenant === tenant ? entry.decision : entry.others?.get(tenant))?.bare;
  }
}
