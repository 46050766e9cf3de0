/** What each tier offers for a context, and the context itself (aiOS, memory, context assembly). */
import type { ContextRequest, GoalRecord } from "../../contracts/gen/aios/memory.ts";
import { BeamlineError } from "../../contracts/errors.ts";
import type { Logger } from "../../runtime/log.ts";
import type { Archive } from "./archive.ts";
import { assemble, tiersOf, type Chunk, type Offer, type Tier } from "./context.ts";
import type { Operational } from "./operational.ts";

/** Relevance of tiers that are not searched, as the contract fixes them. */
const EVENT_RELEVANCE = 0.8;
const GOAL_RELEVANCE = 0.7;
const EVENTS = 10;
const GOALS = 5;
/** Offered by a searched tier; twice what the contract takes, since chunks that do not fit are skipped. */
const HITS = 10;
const LEAST_RELEVANCE = 0.3;
/** Longest wait for a search index that is catching up: a context is wanted now. */
const PATIENCE_MS = 2_500;

export interface RecallParts {
  readonly operational: Operational;
  readonly archive: Archive;
  readonly activeGoals: (tenant: string) => Promise<GoalRecord[]>;
  readonly logger: Logger;
  readonly now: () => number;
}

export interface Caller {
  readonly tenant: string;
  readonly deadline: number;
  readonly signal: AbortSignal;
}

/**
 * The context for a task. A tier that cannot be reached is left out and logged; when none can, its error is thrown.
 */
export async function recall(
  parts: RecallParts,
  request: ContextRequest,
  caller: Caller,
): Promise<{ chunks: Chunk[]; total_tokens: number }> {
  const wanted = tiersOf(request.memory_tiers);
  if (wanted.length === 0 || request.max_tokens < 0) return { chunks: [], total_tokens: 0 };
  const answers = await Promise.allSettled(
    wanted.map((tier) => offersOf(parts, tier, request.task_description, caller)),
  );
  const offers = new Map<Tier, Offer[]>();
  let failure: unknown;
  answers.forEach((answer, at) => {
    const tier = wanted[at];
    if (tier === undefined) return;
    if (answer.status === "fulfilled") offers.set(tier, answer.value);
    else {
      failure = answer.reason;
      parts.logger.warn("a context is assembled without one of its tiers", { tier, error: answer.reason });
    }
  });
  if (offers.size === 0) throw BeamlineError.from(failure);
  return assemble(offers, request.max_tokens);
}

async function offersOf(
  { operational, archive, activeGoals, now }: RecallParts,
  tier: Tier,
  task: string,
  caller: Caller,
): Promise<Offer[]> {
  const { tenant, signal } = caller;
  const search = (collections: readonly string[]) =>
    archive.search(tenant, {
      query: task,
      collections,
      limit: HITS,
      minRelevance: LEAST_RELEVANCE,
      deadline: Math.min(caller.deadline, now() + PATIENCE_MS),
      signal,
    });
  switch (tier) {
    case "operational": {
      const events = await operational.recent(tenant, { count: EVENTS, category: "", source: "" });
      return events.map(({ data_json }) => ({ content: data_json.toString("utf8"), relevance: EVENT_RELEVANCE }));
    }
    case "working": {
      const goals = (await activeGoals(tenant)).slice(0, GOALS);
      return goals.map(({ id, description, status }) => ({
        content: `Goal [${id}]: ${description} (status: ${status})`,
        relevance: GOAL_RELEVANCE,
      }));
    }
    case "longterm":
      return search(["decisions", "procedures", "incidents"]);
    case "knowledge":
      return search(["knowledge"]);
  }
}
