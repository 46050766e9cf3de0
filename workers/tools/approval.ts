/**
 * Approvals: a person agrees to one exact call — agent, tool, version, arguments — once, within a time (aiOS tools, 1.2 confirmation).
 *
 * V1 An approval belongs to the hash of the call. Other arguments have another hash, so they have no approval.
 * V2 It is used once: the use is a compare-and-set, and whoever comes second is refused.
 * V3 Nobody deciding in time is a denial, and is recorded as one.
 * V4 A call that could not begin has not used it.
 *
 * A client needs to know nothing of this: its call is refused with the approval's id, and made again after the approval it goes through.
 */
import { keyOf } from "../../bus/keys.ts";
import { BeamlineError } from "../../contracts/errors.ts";
import { isoMicros, type Clock } from "../../runtime/clock.ts";
import type { Ids } from "../../runtime/ids.ts";
import type { Bucket } from "./bucket.ts";
import { hashOf } from "./canonical.ts";
import { bounded } from "./audit/bounded.ts";
import type { Ledger } from "./audit/ledger.ts";
import { isObject } from "./journal.ts";
import type { Journey } from "./pipeline.ts";
import type { Offered } from "./registry.ts";

/** Which tools need one. */
export type ConfirmRule = "off" | "critical" | "high" | "marked";

export type ApprovalStatus = "pending" | "approved" | "denied" | "used";

export interface Approval {
  readonly approval_id: string;
  readonly status: ApprovalStatus;
  readonly call_hash: string;
  readonly tool_name: string;
  readonly version: string;
  readonly agent_id: string;
  readonly task_id: string;
  readonly reason: string;
  /** Redacted and bounded, for whoever decides. */
  readonly input: string;
  /** Epoch milliseconds. */
  readonly asked_at: number;
  readonly expires_at: number;
  readonly decided_by?: string;
  readonly decided_at?: number;
  /** Why it was denied; `timeout` when nobody decided. */
  readonly note?: string;
}

/** Whether that is an approval as it is stored. */
export function isApproval(value: unknown): value is Approval {
  if (!isObject(value) || typeof value["asked_at"] !== "number" || typeof value["expires_at"] !== "number")
    return false;
  const texts = ["approval_id", "status", "call_hash", "tool_name", "agent_id", "task_id", "input"];
  return texts.every((name) => typeof value[name] === "string");
}

export type Verdict = { readonly approvalId: string | undefined } | { readonly refusal: string };

export class Approvals {
  readonly #bucket: Bucket<Approval>;
  readonly #ledger: Ledger;
  readonly #clock: Clock;
  readonly #ids: Ids;
  readonly #rule: ConfirmRule;
  readonly #lifeMs: number;

  constructor(bucket: Bucket<Approval>, ledger: Ledger, clock: Clock, ids: Ids, rule: ConfirmRule, lifeMs: number) {
    this.#bucket = bucket;
    this.#ledger = ledger;
    this.#clock = clock;
    this.#ids = ids;
    this.#rule = rule;
    this.#lifeMs = lifeMs;
  }

  /** Lets a call pass that needs no approval, or uses up the one it has. A call without one asks for it. */
  async admit(journey: Journey): Promise<Verdict> {
    if (!this.#needed(journey.offered)) return { approvalId: undefined };
    const { tenant } = journey.context;
    const hash = callHash(journey);
    const key = keyOf(tenant, hash);
    const { value: found, revision } = await this.#bucket.get(key);
    const now = this.#clock.now();
    if (found === undefined || found.status === "used" || (found.status === "denied" && found.expires_at <= now)) {
      const asked = this.#ask(journey, hash);
      try {
        await this.#bucket.put(key, asked, revision);
      } catch (thrown) {
        ignoreConflict(thrown);
        return this.admit(journey); // somebody else asked first
      }
      const used = found?.status === "used" ? ` (approval ${found.approval_id} was already used)` : "";
      return { refusal: `Confirmation required: approval ${asked.approval_id} is pending${used}` };
    }
    if (found.status === "denied")
      return {
        refusal: `Confirmation denied: approval ${found.approval_id}${found.note === undefined ? "" : ` (${found.note})`}`,
      };
    if (found.expires_at <= now) {
      await this.#deny(tenant, key, found, revision, "timeout", "");
      return { refusal: `Confirmation denied: approval ${found.approval_id} (timeout)` };
    }
    if (found.status === "pending")
      return { refusal: `Confirmation required: approval ${found.approval_id} is pending` };
    try {
      await this.#bucket.put(key, { ...found, status: "used" }, revision); // V2
      return { approvalId: found.approval_id };
    } catch (thrown) {
      if (thrown instanceof BeamlineError && thrown.code === "aborted")
        return { refusal: `Confirmation required: approval ${found.approval_id} was already used` };
      throw thrown;
    }
  }

  /** V4. The approval of a call that never began may be used again. */
  async giveBack(journey: Journey): Promise<void> {
    const { approvalId } = journey;
    if (approvalId === undefined) return;
    await this.#bucket.update(keyOf(journey.context.tenant, callHash(journey)), (found) =>
      found?.approval_id === approvalId && found.status === "used" ? { ...found, status: "approved" } : undefined,
    );
  }

  /** Open and decided approvals of a tenant, oldest first. */
  async list(tenant: string): Promise<Approval[]> {
    return (await this.#bucket.entries(keyOf(tenant)))
      .map(({ value }) => value)
      .sort((a, b) => a.asked_at - b.asked_at);
  }

  /** Tenants that have approvals. */
  async tenants(): Promise<string[]> {
    return [...new Set((await this.#bucket.entries("*")).map(({ parts }) => parts[0] ?? ""))];
  }

  /** Approves or denies. Throws `not_found`, `failed_precondition` when it was decided already or its time is over. */
  async decide(tenant: string, approvalId: string, approve: boolean, by: string, note: string): Promise<Approval> {
    const listed = (await this.list(tenant)).find(({ approval_id }) => approval_id === approvalId);
    if (listed === undefined)
      throw new BeamlineError("not_found", `there is no approval ${approvalId}`, { field: "approval_id" });
    const key = keyOf(tenant, listed.call_hash);
    const { value: found, revision } = await this.#bucket.get(key);
    if (found === undefined || found.approval_id !== approvalId || found.status !== "pending") {
      throw new BeamlineError("failed_precondition", `approval ${approvalId} is ${found?.status ?? "gone"}`, {
        field: "approval_id",
      });
    }
    if (found.expires_at <= this.#clock.now()) {
      await this.#deny(tenant, key, found, revision, "timeout", "");
      throw new BeamlineError("failed_precondition", `approval ${approvalId} was not decided in time`, {
        field: "approval_id",
      });
    }
    if (!approve) return this.#deny(tenant, key, found, revision, note, by);
    const decided = { ...found, status: "approved" as const, decided_by: by, decided_at: this.#clock.now() };
    await this.#bucket.put(key, decided, revision);
    await this.#record(tenant, decided, true, `approved by ${by}`);
    return decided;
  }

  /** V3. Denies what nobody decided in time; returns how many. */
  async expire(tenant: string): Promise<number> {
    let count = 0;
    for (const found of await this.list(tenant)) {
      if (found.status !== "pending" || found.expires_at > this.#clock.now()) continue;
      const key = keyOf(tenant, found.call_hash);
      const { value, revision } = await this.#bucket.get(key);
      if (value?.status !== "pending" || value.approval_id !== found.approval_id) continue;
      const denied = await this.#deny(tenant, key, value, revision, "timeout", "").catch(ignoreConflict);
      if (denied !== undefined) count++;
    }
    return count;
  }

  async #deny(
    tenant: string,
    key: string,
    found: Approval,
    revision: number,
    note: string,
    by: string,
  ): Promise<Approval> {
    const denied = { ...found, status: "denied" as const, note, decided_by: by, decided_at: this.#clock.now() };
    await this.#bucket.put(key, denied, revision);
    await this.#record(
      tenant,
      denied,
      false,
      note === "timeout" ? "nobody decided in time" : `denied by ${by}: ${note}`,
    );
    return denied;
  }

  async #record(tenant: string, approval: Approval, success: boolean, what: string): Promise<void> {
    const { approval_id, agent_id, task_id, input } = approval;
    await this.#ledger.append(tenant, {
      execution_id: approval_id,
      tool_name: approval.tool_name,
      agent_id,
      task_id,
      reason: bounded.text(`approval: ${what}`),
      success,
      duration_ms: this.#clock.now() - approval.asked_at,
      timestamp: isoMicros(this.#clock.micros()),
      input,
      approval_id,
    });
  }

  #needed({ definition, checkedRisk }: Offered): boolean {
    if (this.#rule === "off") return false;
    if (this.#rule === "marked") return definition.requires_confirmation;
    const risks = new Set([definition.risk_level, checkedRisk]);
    return risks.has("critical") || definition.requires_confirmation || (this.#rule === "high" && risks.has("high"));
  }

  #ask({ request, offered, input }: Journey, hash: string): Approval {
    const now = this.#clock.now();
    return {
      approval_id: this.#ids.v4(),
      status: "pending",
      call_hash: hash,
      tool_name: request.tool_name,
      version: offered.definition.version,
      agent_id: request.agent_id,
      task_id: request.task_id,
      reason: bounded.text(request.reason),
      input: bounded.json(input, []),
      asked_at: now,
      expires_at: now + this.#lifeMs,
    };
  }
}

/** V1. */
function callHash({ request, offered, input }: Journey): string {
  return hashOf([request.agent_id, request.tool_name, offered.definition.version, input]);
}

function ignoreConflict(thrown: unknown): undefined {
  if (thrown instanceof BeamlineError && thrown.code === "aborted") return undefined;
  throw thrown;
}
