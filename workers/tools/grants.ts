/**
 * Capabilities granted for a time, shared by all workers and by the orchestrator (aiOS tools, 1.4; orchestrator, 4.6). Read from the bucket
 * whenever an agent's default set does not suffice, so that a grant or a revocation counts everywhere from its acknowledgement on.
 */
import { BeamlineError } from "../../contracts/errors.ts";
import { keyOf } from "../../bus/keys.ts";
import type { Clock } from "../../runtime/clock.ts";
import type { Bucket } from "./bucket.ts";
import { agents, lacking, parseHeld, type Held } from "./capabilities.ts";
import { ToolFailure } from "./failure.ts";
import type { Fence } from "./files/confine.ts";
import { isObject } from "./journal.ts";

export interface Grant {
  /** As it was asked for. */
  readonly capability: string;
  readonly reason: string;
  readonly granted_by: string;
  /** Epoch milliseconds. */
  readonly granted_at: number;
  readonly expires_at: number;
}

/** What is stored for one agent. */
export interface GrantDocument {
  readonly grants: readonly Grant[];
}

/** Whether that is what is stored for an agent. */
export function isGrants(value: unknown): value is GrantDocument {
  if (!isObject(value) || !Array.isArray(value["grants"])) return false;
  return value["grants"].every(
    (grant: unknown) =>
      isObject(grant) && typeof grant["capability"] === "string" && typeof grant["expires_at"] === "number",
  );
}

export const DEFAULT_HOURS = 24;
const HOUR_MS = 3_600_000;
const MAX_HOURS = 24 * 365;
const MAX_GRANTS = 500;

export interface GrantRequest {
  readonly agent: string;
  readonly capabilities: readonly string[];
  readonly reason: string;
  /** Default 24; a number that is not positive counts as the default. */
  readonly hours?: number | undefined;
  readonly by: string;
}

/** What came of checking an agent. */
export interface Checked {
  /** Capabilities it lacks. */
  readonly missing: string[];
  /** Whether it has any capability at all. */
  readonly known: boolean;
  /** Where its capabilities hold, when they hold for some paths only. */
  readonly fence: Fence | undefined;
}

export class Grants {
  readonly #bucket: Bucket<GrantDocument>;
  readonly #clock: Clock;
  readonly #real: (resource: string) => string;

  /** @param real a resource as granted, by the path it really has here */
  constructor(bucket: Bucket<GrantDocument>, clock: Clock, real: (resource: string) => string) {
    this.#bucket = bucket;
    this.#clock = clock;
    this.#real = real;
  }

  /**
   * What an agent lacks, and whether it has any set at all. Only an agent whose default set does not suffice costs a look into the bucket;
   * only grants bound to a path ask for the paths. When it passes by such a grant alone there is a fence: paths are names, and what they
   * name may be another thing by the time it is opened, so whatever is opened has to ask it again.
   */
  async check(
    tenant: string,
    agent: string,
    needs: readonly string[],
    paths: () => Promise<readonly string[]>,
  ): Promise<Checked> {
    const byDefault = Object.hasOwn(agents, agent)
      ? (agents[agent] ?? []).map((capability) => ({ capability }))
      : undefined;
    if (byDefault !== undefined && lacking(needs, byDefault, []).length === 0)
      return { missing: [], known: true, fence: undefined };
    if (agent === "") return { missing: [...needs], known: false, fence: undefined };
    const granted = await this.held(tenant, agent);
    const bound = granted.some(({ resource }) => resource !== undefined) ? await paths() : [];
    const held = [...(byDefault ?? []), ...granted];
    const missing = lacking(needs, held, bound);
    const fence: Fence | undefined =
      missing.length === 0 && lacking(needs, held, []).length > 0
        ? (path) => lacking(needs, held, [path]).length === 0
        : undefined;
    return { missing, known: byDefault !== undefined || granted.length > 0, fence };
  }

  /** Grants an agent still has. */
  async held(tenant: string, agent: string): Promise<Held[]> {
    return (await this.list(tenant, agent)).flatMap(({ capability }) => {
      const held = parseHeld(capability);
      if (held?.resource === undefined) return held ?? [];
      return { ...held, resource: this.#real(held.resource) };
    });
  }

  async list(tenant: string, agent: string): Promise<readonly Grant[]> {
    const { value } = await this.#bucket.get(keyOf(tenant, agent));
    return alive(value, this.#clock.now());
  }

  /** What is stored for an agent, as text, and its revision: for putting it back. */
  async document(tenant: string, agent: string): Promise<{ readonly text: string | null; readonly revision: number }> {
    const { value, revision } = await this.#bucket.get(keyOf(tenant, agent));
    return { text: value === undefined ? null : JSON.stringify(value), revision };
  }

  /**
   * Grants for a time. Throws `ToolFailure` for a capability that is none, and for an agent that grants itself what it does not hold.
   */
  async grant(
    tenant: string,
    request: GrantRequest,
  ): Promise<{ readonly expiresAt: number; readonly before: string | null; readonly revision: number }> {
    const { agent, capabilities, reason, by } = request;
    if (agent === "") throw new ToolFailure("agent_id is empty");
    if (capabilities.length === 0) throw new ToolFailure("capabilities is empty");
    for (const capability of capabilities) {
      if (parseHeld(capability) === undefined)
        throw new ToolFailure(`${JSON.stringify(capability)} is not a capability`);
    }
    if (agent === by) {
      const { missing } = await this.check(
        tenant,
        by,
        capabilities.map((text) => parseHeld(text)?.capability ?? text),
        async () => [],
      );
      if (missing.length > 0)
        throw new ToolFailure(`an agent cannot grant itself what it does not hold: ${missing.join(", ")}`);
    }
    const hours = request.hours !== undefined && request.hours > 0 ? Math.min(request.hours, MAX_HOURS) : DEFAULT_HOURS;
    const now = this.#clock.now();
    const expiresAt = now + hours * HOUR_MS;
    let before: string | null = null;
    const { revision } = await this.#bucket.update(keyOf(tenant, agent), (document) => {
      before = document === undefined ? null : JSON.stringify(document);
      const kept = alive(document, now).filter(({ capability }) => !capabilities.includes(capability));
      const added = capabilities.map((capability) => ({
        capability,
        reason,
        granted_by: by,
        granted_at: now,
        expires_at: expiresAt,
      }));
      if (kept.length + added.length > MAX_GRANTS) throw new ToolFailure(`an agent may hold ${MAX_GRANTS} grants`);
      return { grants: [...kept, ...added] };
    });
    return { expiresAt, before, revision };
  }

  /** Takes grants back, all of them when `capabilities` is undefined. Default sets stay. */
  async revoke(
    tenant: string,
    agent: string,
    capabilities: readonly string[] | undefined,
  ): Promise<{ readonly count: number; readonly before: string | null; readonly revision: number }> {
    let count = 0;
    let before: string | null = null;
    const { revision } = await this.#bucket.update(keyOf(tenant, agent), (document) => {
      before = document === undefined ? null : JSON.stringify(document);
      const held = alive(document, this.#clock.now());
      const kept =
        capabilities === undefined ? [] : held.filter(({ capability }) => !capabilities.includes(capability));
      count = held.length - kept.length;
      return count === 0 ? undefined : { grants: kept };
    });
    return { count, before, revision };
  }

  /** Puts an agent's grants back as they were. Throws `ToolFailure` when they were changed after the revision named. */
  async restore(tenant: string, agent: string, before: string | null, revision: number | undefined): Promise<void> {
    const key = keyOf(tenant, agent);
    const current = await this.#bucket.get(key);
    if (revision !== undefined && current.revision !== revision)
      throw new ToolFailure(`the grants of ${agent} have changed since`);
    const document = before === null ? { grants: [] } : (JSON.parse(before) as GrantDocument);
    try {
      await this.#bucket.put(key, document, current.revision);
    } catch (thrown) {
      if (thrown instanceof BeamlineError && thrown.code === "aborted")
        throw new ToolFailure(`the grants of ${agent} have changed since`);
      throw thrown;
    }
  }
}

function alive(document: GrantDocument | undefined, now: number): Grant[] {
  return (document?.grants ?? []).filter(({ expires_at }) => expires_at > now);
}
