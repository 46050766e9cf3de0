/**
 * What a completed goal teaches: a procedure of the steps that led there, and a pattern for the next time (aiOS, memory, working tier and migration).
 *
 * The procedure's id is made from the goal's, so that learning twice changes nothing. It is written again only when more is known of how the goal was
 * reached: what its tool calls say stays when they are gone, and so does what somebody made of it since. A goal that begins like one before it and was reached with the
 * same tools counts for the same pattern, once.
 */
import { createHash } from "node:crypto";
import { codecOf } from "../../contracts/codec.ts";
import { GoalRecord, Pattern, Procedure, TaskRecord, ToolCallRecord } from "../../contracts/gen/aios/memory.ts";
import type { LongTerm } from "./longterm.ts";
import type { Held } from "./ports.ts";
import { lowerAscii } from "./index/score.ts";
import type { Working, Writer } from "./working.ts";

const goals = codecOf(GoalRecord);
const tasks = codecOf(TaskRecord);
const calls = codecOf(ToolCallRecord);
const patterns = codecOf(Pattern);

/** Tasks of a goal in the order of the contract: started first, then as they were stored. */
export async function tasksOf(working: Working, tenant: string, goalId: string): Promise<TaskRecord[]> {
  return inStartOrder(await working.hot.group(tenant, "task", goalId));
}

/** Tasks in that order. */
export function inStartOrder(held: readonly Held[]): TaskRecord[] {
  return inOrder(
    held,
    (state) => tasks.fromJson(state),
    (task) => task.started_at,
  );
}

/** Decoded and sorted by one of their moments, then by when they were first stored, then by id. */
export function inOrder<T extends { readonly id: string }>(
  held: readonly Held[],
  decode: (state: unknown) => T,
  moment: (thing: T) => bigint,
): T[] {
  const all = held.map(({ state, born }) => ({ thing: decode(state), born }));
  all.sort(
    (a, b) => compare(moment(a.thing), moment(b.thing)) || a.born - b.born || (a.thing.id < b.thing.id ? -1 : 1),
  );
  return all.map(({ thing }) => thing);
}

export function compare(a: bigint, b: bigint): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

export function procedureId(goalId: string): string {
  return `goal:${goalId}`;
}

/** How much of a description tells which goals are alike, characters (aiOS, memory, working tier). */
const ALIKE = 50;

function patternId(description: string, action: string): string {
  const alike = JSON.stringify([lowerAscii(description.slice(0, ALIKE)), action]);
  return `learned:${createHash("sha256").update(alike).digest("hex").slice(0, 24)}`;
}

/**
 * Stores what the goal teaches. True when there is nothing (left) to do: the procedure is in the log, and search finds it; or the goal
 * had no steps to learn from.
 */
export async function learn(
  working: Working,
  longTerm: LongTerm,
  writer: Writer,
  goalState: unknown,
): Promise<boolean> {
  const goal = goals.fromJson(goalState);
  const of = await tasksOf(working, writer.tenant, goal.id);
  const perTask = await Promise.all(of.map((task) => working.hot.group(writer.tenant, "tool_call", task.id)));
  const done = perTask
    .flatMap((held) =>
      inOrder(
        held,
        (state) => calls.fromJson(state),
        (call) => call.timestamp,
      ),
    )
    .filter((call) => call.success);
  const steps =
    done.length > 0
      ? done.map(({ tool_name, input_json, reason }) => ({
          tool: tool_name,
          input: parsed(input_json),
          ...(reason !== "" && { reason }),
        }))
      : of.map(({ description, agent }) => ({ task: description, ...(agent !== "" && { agent }) }));
  const id = procedureId(goal.id);
  const known = await longTerm.last(writer.tenant, "procedure", id);
  const from = { ...writer, key: "", task: goal.id };
  const action = done.map(({ tool_name }) => tool_name).join(" → ");
  const before = stepsOf(known?.state);
  const tools = before.filter((step) => "tool" in step).length;
  const more = done.length > tools || (done.length === tools && steps.length > before.length);
  if (!more) {
    const whole = action !== "" && done.length === tools;
    if (whole) await learnPattern(working, from, goal, action, momentOf(goal), false);
    return known?.state === undefined || longTerm.archive.put(known, false);
  }
  const moment = momentOf(goal);
  const procedure = Procedure.fromPartial({
    id,
    name: goal.description.split("\n", 1)[0]?.slice(0, 120) ?? "",
    description: [goal.description, ...(goal.result === "" ? [] : [`Result: ${goal.result}`])].join("\n"),
    steps_json: Buffer.from(JSON.stringify(steps)),
    success_count: 1,
    avg_duration_ms: of.reduce((sum, task) => sum + task.duration_ms, 0n),
    tags: ["learned", ...new Set(done.map(({ tool_name }) => tool_name.split(".", 1)[0] ?? ""))],
    created_at: moment,
    last_used: moment,
  });
  const { fresh, indexed } = await longTerm.put(from, "procedure", id, codecOf(Procedure).toJson(procedure));
  if (action !== "") await learnPattern(working, from, goal, action, moment, fresh);
  return indexed;
}

function momentOf(goal: GoalRecord): bigint {
  return goal.completed_at > 0n ? goal.completed_at : goal.created_at;
}

/** The steps of a procedure as somebody left them. */
function stepsOf(state: unknown): object[] {
  if (state === undefined) return [];
  const steps = parsed(codecOf(Procedure).fromJson(state).steps_json);
  return Array.isArray(steps) ? steps.filter((step) => typeof step === "object" && step !== null) : [];
}

/** @param first whether nothing was learned from this goal before: only then it counts for a pattern that is there */
async function learnPattern(
  working: Working,
  writer: Writer,
  goal: GoalRecord,
  action: string,
  moment: bigint,
  first: boolean,
): Promise<void> {
  const id = patternId(goal.description, action);
  const [known] = await working.hot.peek(writer.tenant, [["pattern", id]]);
  if (known === undefined || (first && known.state === undefined)) {
    const pattern = Pattern.fromPartial({
      id,
      trigger: goal.description,
      action,
      success_rate: 1,
      uses: 1,
      last_used: moment,
      created_from: goal.id,
    });
    await working.put(writer, "pattern", id, patterns.toJson(pattern), [known]);
  } else if (first) {
    await working.change(writer, "pattern", id, (state) =>
      patterns.toJson(used(patterns.fromJson(state), true, moment)),
    );
  }
}

/** The largest count that the field can hold. */
const MOST_USES = 2 ** 31 - 1;

/** A pattern after one more use (aiOS, memory, UpdatePatternStats). `at` in seconds. A full count stays full. */
export function used(pattern: Pattern, success: boolean, at: bigint): Pattern {
  const uses = pattern.uses + 1;
  const success_rate = (pattern.success_rate * pattern.uses + (success ? 1 : 0)) / uses;
  return { ...pattern, uses: Math.min(MOST_USES, uses), success_rate, last_used: at };
}

function parsed(bytes: Buffer): unknown {
  try {
    return bytes.length === 0 ? {} : JSON.parse(bytes.toString("utf8"));
  } catch {
    return bytes.toString("utf8");
  }
}
