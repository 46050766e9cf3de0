/** The list of runs: our own addition, the contract has none. Pages are cut where a run was made, so that runs that come or change meanwhile move none. */
import { BeamlineError } from "../../../contracts/errors.ts";
import { textOr, type Json } from "../../../contracts/openwop/json.ts";
import { isTerminal, snapshotOf } from "../../../contracts/openwop/snapshot.ts";
import { RUN_STATUSES } from "../../../contracts/openwop/state.ts";
import { invalid, oneOf } from "../body.ts";
import { permit, type Answer, type Asker } from "../caller.ts";
import type { RunsPorts } from "../ports.ts";
import { runsBefore, type Made } from "../runlist.ts";
import { shown } from "./read.ts";

const MAX_LIMIT = 500;
/** Runs looked at for one page: a rare status is found over several of them. */
const MAX_LOOKED_AT = 1_000;
const AT_ONCE = 25;

/**
 * Runs of the caller's tenant, newest first: `{runs, nextCursor?}`. `limit` 1 to 500, default 50; `status` filters; `cursor` goes on where the
 * page that gave it ended. A page may hold fewer than `limit`, even none, and have a `nextCursor`: only its absence is the end.
 */
export async function listRuns(ports: RunsPorts, asker: Asker, query: Json): Promise<Answer> {
  permit(asker, "runs:read");
  const limit = limitOf(query["limit"]);
  const { status } = query;
  if (status !== undefined) oneOf(...RUN_STATUSES)(status, "status");
  const runs: Json[] = [];
  let last = positionOf(query["cursor"]);
  let looked = 0;
  for await (const made of runsBefore(ports.bus, asker.tenant, last)) {
    for (let at = 0; at < made.length; at += AT_ONCE) {
      const some = made.slice(at, at + AT_ONCE);
      const rows = await Promise.all(some.map((one) => rowOf(ports, asker, one)));
      for (const [index, { streamSeq }] of some.entries()) {
        if (runs.length >= limit || looked >= MAX_LOOKED_AT)
          return { status: 200, body: { runs, nextCursor: cursorOf(last) } };
        const row = rows[index];
        if (row !== undefined && (status === undefined || row["status"] === status)) runs.push(row);
        last = streamSeq;
        looked++;
      }
    }
  }
  return { status: 200, body: { runs } };
}

/** A run as `GET /v1/runs/{id}` tells it, in short; undefined when its log has expired meanwhile, or cannot be read. */
async function rowOf(ports: RunsPorts, asker: Asker, { runId }: Made): Promise<Json | undefined> {
  const held = await ports.log.find(asker.tenant, runId).catch(unlessUnreadable);
  if (held === undefined) return undefined;
  const { state } = held;
  // Only children of a run that goes on can change how it is told.
  const told = isTerminal(state) ? snapshotOf(state) : (await shown(ports, asker, state, 0)).body;
  const { workflowId, status, startedAt, completedAt, currentNodeId } = told;
  return {
    runId,
    workflowId,
    status,
    startedAt,
    ...(completedAt !== undefined && { completedAt }),
    ...(currentNodeId !== undefined && { currentNodeId }),
  };
}

function unlessUnreadable(thrown: unknown): undefined {
  if (thrown instanceof BeamlineError && thrown.code === "data_loss") return undefined;
  throw thrown;
}

function limitOf(given: unknown): number {
  const limit = given === undefined || given === "" ? 50 : Number(given);
  if (!Number.isInteger(limit) || limit < 1 || limit > MAX_LIMIT)
    throw invalid("limit", `must be a whole number from 1 to ${MAX_LIMIT}`);
  return limit;
}

/** What a cursor says: the sequence of the stream before which the page begins. Without one: the newest. */
function positionOf(given: unknown): number {
  if (given === undefined || given === "") return Number.MAX_SAFE_INTEGER;
  const position = Number(/^runs:(\d{1,15})$/.exec(Buffer.from(textOr(given, ""), "base64url").toString("utf8"))?.[1]);
  if (Number.isNaN(position) || cursorOf(position) !== given)
    throw invalid("cursor", "is not a nextCursor of this list");
  return position;
}

function cursorOf(position: number): string {
  return Buffer.from(`runs:${position}`).toString("base64url");
}
