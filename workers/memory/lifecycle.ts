/**
 * How memories grow old (aiOS, memory, migration and retention; ages are settings).
 *
 * V1 Nothing leaves a tier before it is confirmed in the next: in the log, and found by search where it is promoted to a document.
 * V2 Every step may be repeated: a sweep that dies half way, or runs twice at once, does no harm.
 *
 * operational → working: critical events stay in hot state for `criticalAgeMs`, ordinary ones for `eventAgeMs`
 * working → long-term: a completed goal becomes a procedure at once, and every ended goal a piece of knowledge after `goalAgeMs`, when it
 * and its tasks leave; decisions are documents from the start and leave hot state after `decisionAgeMs`; tool calls stay in the log alone after
 * `toolCallAgeMs`; of patterns the best `patterns` stay
 */
import { partOf } from "../../bus/keys.ts";
import { codecOf } from "../../contracts/codec.ts";
import { Decision, GoalRecord, KnowledgeEntry, Pattern, ToolCallRecord } from "../../contracts/gen/aios/memory.ts";
import type { Clock } from "../../runtime/clock.ts";
import type { Logger } from "../../runtime/log.ts";
import type { RedisHot } from "./hot/hot.redis.ts";
import { inStartOrder, learn } from "./learn.ts";
import type { MemoryLog } from "./log.ts";
import { knowledgeId, type LongTerm } from "./longterm.ts";
import type { Held } from "./ports.ts";
import type { Working, Writer } from "./working.ts";

export interface Ages {
  readonly eventAgeMs: number;
  readonly criticalAgeMs: number;
  readonly goalAgeMs: number;
  readonly decisionAgeMs: number;
  readonly toolCallAgeMs: number;
  /** Patterns kept per tenant. */
  readonly patterns: number;
}

export interface Swept {
  events: number;
  goals: number;
  decisions: number;
  tool_calls: number;
  patterns: number;
  /** What stays for now, because the next tier did not confirm it (V1). */
  waiting: number;
}

export interface LifecycleParts {
  readonly hot: RedisHot;
  readonly log: MemoryLog;
  readonly working: Working;
  readonly longTerm: LongTerm;
  readonly clock: Clock;
  readonly logger: Logger;
}

const goals = codecOf(GoalRecord);
const decisions = codecOf(Decision);
const calls = codecOf(ToolCallRecord);
const patterns = codecOf(Pattern);
const PAGE = 200;

export class Lifecycle {
  readonly #parts: LifecycleParts;
  readonly #ages: Ages;

  constructor(parts: LifecycleParts, ages: Ages) {
    this.#parts = parts;
    this.#ages = ages;
  }

  /** Sweeps every `everyMs` until the signal; one worker of all gets the turn. Never throws. */
  async run(everyMs: number, holder: string, signal: AbortSignal): Promise<void> {
    const { clock, hot, logger } = this.#parts;
    while (!signal.aborted) {
      try {
        if (await hot.lease("sweep", holder, everyMs * 0.9)) {
          for (const token of await hot.tenants()) {
            if (signal.aborted) return;
            const swept = await this.sweep(partOf(token), signal);
            if (Object.values(swept).some((count) => count > 0))
              logger.info("memories moved on", { tenant_id: partOf(token), ...swept });
          }
        }
      } catch (error) {
        if (signal.aborted) return;
        logger.warn("the memory sweep did not finish", { error });
      }
      await clock.sleep(everyMs, signal).catch(() => undefined);
    }
  }

  /** One pass over a tenant. */
  async sweep(tenant: string, signal?: AbortSignal): Promise<Swept> {
    const writer: Writer = { tenant, by: "lifecycle", task: "", trace: "", key: "", signal };
    const swept: Swept = { events: 0, goals: 0, decisions: 0, tool_calls: 0, patterns: 0, waiting: 0 };
    await this.#events(tenant, swept);
    await this.#goals(writer, swept);
    await this.#decisions(tenant, swept);
    await this.#toolCalls(tenant, swept);
    await this.#patterns(writer, swept);
    await this.#compact(tenant);
    return swept;
  }

  async #events(tenant: string, swept: Swept): Promise<void> {
    const { eventAgeMs, criticalAgeMs } = this.#ages;
    const before = (ageMs: number): number => (ageMs === 0 ? 0 : (this.#parts.clock.now() - ageMs) * 1000);
    for (;;) {
      const gone = await this.#parts.hot.forgetEvents(tenant, before(eventAgeMs), before(criticalAgeMs));
      swept.events += gone;
      if (gone === 0) return;
    }
  }

  async #goals(writer: Writer, swept: Swept): Promise<void> {
    const { working, longTerm } = this.#parts;
    for (const held of await working.hot.group(writer.tenant, "goal", "ended")) {
      const goal = goals.fromJson(held.state);
      const learned = goal.status !== "completed" || (await learn(working, longTerm, writer, held.state));
      if (!this.#isOld(goal.completed_at, held, this.#ages.goalAgeMs)) continue;
      if (learned && (await this.#promoteGoal(writer, goal, held))) swept.goals++;
      else swept.waiting++;
    }
  }

  /**
   * V1: the goal and its tasks in one document, then they go: the goal first, so that no other sweep makes a document of the tasks that are
   * left. What was stored meanwhile is not in the document; then all of them stay for the next sweep.
   */
  async #promoteGoal(writer: Writer, goal: GoalRecord, held: Held): Promise<boolean> {
    const { working, longTerm } = this.#parts;
    const { hot } = working;
    const seen = await hot.group(writer.tenant, "task", goal.id);
    const [now] = await hot.peek(writer.tenant, [["goal", goal.id]]);
    if (now?.seq !== held.seq) return false;
    const lines = inStartOrder(seen).map(
      ({ description, status, error }) => `- ${description} (${status}${error === "" ? "" : `: ${error}`})`,
    );
    const entry = KnowledgeEntry.fromPartial({
      title: goal.description,
      content: [`${goal.status}${goal.result === "" ? "" : `: ${goal.result}`}`, ...lines].join("\n"),
      source: `goal:${goal.id}`,
      tags: ["goal", goal.status],
    });
    const id = knowledgeId(entry.title, entry.source);
    const { indexed } = await longTerm.put(
      { ...writer, task: goal.id },
      "knowledge",
      id,
      codecOf(KnowledgeEntry).toJson(entry),
    );
    if (!indexed || !same(seen, await hot.group(writer.tenant, "task", goal.id))) return false;
    if (!(await working.giveUp(writer, "goal", held))) return false;
    for (const task of seen) await working.giveUp(writer, "task", task); // one that is changed now stays
    return true;
  }

  async #decisions(tenant: string, swept: Swept): Promise<void> {
    const { hot, longTerm } = this.#parts;
    for await (const page of this.#old(
      tenant,
      "decision",
      this.#ages.decisionAgeMs,
      (state) => decisions.fromJson(state).timestamp,
    )) {
      const { index } = await longTerm.archive.shelf();
      const seqs = await index.seqs(page.map(({ id }) => ({ tenant, collection: "decisions", id })));
      const confirmed = page.filter((held, at) => (seqs[at] ?? 0) >= held.seq);
      swept.waiting += page.length - confirmed.length;
      swept.decisions += await hot.drop(tenant, "decision", confirmed);
    }
  }

  async #toolCalls(tenant: string, swept: Swept): Promise<void> {
    const { hot, log } = this.#parts;
    for await (const page of this.#old(
      tenant,
      "tool_call",
      this.#ages.toolCallAgeMs,
      (state) => calls.fromJson(state).timestamp,
    )) {
      const kept = await Promise.all(page.map(({ id }) => log.last(tenant, "tool_call", id)));
      const confirmed = page.filter((held, at) => (kept[at]?.seq ?? 0) >= held.seq);
      swept.waiting += page.length - confirmed.length;
      swept.tool_calls += await hot.drop(tenant, "tool_call", confirmed);
    }
  }

  /** The patterns beyond the cap: lowest success rate first, then the least used (aiOS, memory, migration). */
  async #patterns(writer: Writer, swept: Swept): Promise<void> {
    const { hot, working } = this.#parts;
    const all: Held[] = [];
    for await (const held of hot.all(writer.tenant, "pattern")) if (held.state !== undefined) all.push(held);
    if (all.length <= this.#ages.patterns) return;
    const ranked = all.map((held) => ({ held, pattern: patterns.fromJson(held.state) }));
    ranked.sort(
      (a, b) =>
        a.pattern.success_rate - b.pattern.success_rate || a.pattern.uses - b.pattern.uses || a.held.born - b.held.born,
    );
    for (const { held } of ranked.slice(0, all.length - this.#ages.patterns)) {
      if (await working.giveUp(writer, "pattern", held)) swept.patterns++;
    }
  }

  /** Things that are rewritten all the time keep only their last state in the log. */
  async #compact(tenant: string): Promise<void> {
    for (const kind of ["agent_state", "pattern"] as const) {
      for await (const { id } of this.#parts.hot.all(tenant, kind)) await this.#parts.log.compact(tenant, kind, id);
    }
  }

  async *#old(
    tenant: string,
    kind: "decision" | "tool_call",
    ageMs: number,
    moment: (state: unknown) => bigint,
  ): AsyncGenerator<Held[]> {
    let page: Held[] = [];
    for await (const held of this.#parts.hot.all(tenant, kind)) {
      if (held.state === undefined || !this.#isOld(moment(held.state), held, ageMs)) continue;
      page.push(held);
      if (page.length < PAGE) continue;
      yield page;
      page = [];
    }
    if (page.length > 0) yield page;
  }

  /** By the thing's own moment (seconds) when it has one, else by when it was stored. An age of 0 never comes. */
  #isOld(moment: bigint, { born }: Held, ageMs: number): boolean {
    const atMs = moment > 0n ? Number(moment) * 1000 : born / 1000;
    return ageMs > 0 && atMs < this.#parts.clock.now() - ageMs;
  }
}

/** Whether these are the same things in the same states. */
function same(some: readonly Held[], others: readonly Held[]): boolean {
  const states = new Set(some.map(({ id, seq }) => `${seq} ${id}`));
  return some.length === others.length && others.every(({ id, seq }) => states.has(`${seq} ${id}`));
}
