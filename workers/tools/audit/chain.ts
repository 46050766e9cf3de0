/**
 * The audit ledger's hash chains, as pure functions (aiOS tools, 1.6 audit ledger).
 *
 * The first chain is the published one: `sha256(prev_hash + execution_id + tool_name + agent_id + timestamp)`, texts put together without
 * separators, beginning with `genesis`; existing verifiers follow it. It leaves most fields uncovered, so a second chain covers every
 * field of a row, names included.
 */
import { createHash } from "node:crypto";
import { canonical } from "../canonical.ts";

export const GENESIS = "genesis";

/** What happened, before it is chained. */
export interface Happening {
  readonly execution_id: string;
  readonly tool_name: string;
  readonly agent_id: string;
  readonly task_id: string;
  readonly reason: string;
  readonly success: boolean;
  readonly duration_ms: number;
  /** RFC 3339, UTC. */
  readonly timestamp: string;
  /** Redacted and bounded; absent when there was none. */
  readonly input?: string;
  readonly output?: string;
  readonly error?: string;
  readonly risk_level?: string;
  readonly capabilities_used?: readonly string[];
  readonly backup_id?: string;
  /** The execution this one undid. */
  readonly rollback_of?: string;
  readonly approval_id?: string;
  readonly principal?: string;
  readonly trace_id?: string;
  readonly node?: string;
}

/** A row of the ledger: published fields in published order first. */
export interface Row extends Happening {
  /** Counts from 1. */
  readonly id: number;
  readonly prev_hash: string;
  readonly hash: string;
  readonly prev_full_hash: string;
  /** Over every other field. */
  readonly full_hash: string;
}

/** Where a chain stands. */
export interface Head {
  readonly id: number;
  readonly hash: string;
  readonly fullHash: string;
}

export const emptyChain: Head = { id: 0, hash: GENESIS, fullHash: GENESIS };

/** The next row after a head. */
export function chained(head: Head, happening: Happening): Row {
  const { execution_id, tool_name, agent_id, task_id, reason, success, duration_ms, timestamp, ...more } = happening;
  const hash = sha256(head.hash + execution_id + tool_name + agent_id + timestamp);
  const published = {
    id: head.id + 1,
    execution_id,
    tool_name,
    agent_id,
    task_id,
    reason,
    success,
    duration_ms,
    timestamp,
    prev_hash: head.hash,
    hash,
  };
  const covered = { ...published, ...more, prev_full_hash: head.fullHash };
  return { ...covered, full_hash: sha256(canonical(covered)) };
}

export function headOf(row: Row): Head {
  return { id: row.id, hash: row.hash, fullHash: row.full_hash };
}

/** What is wrong with a row that should follow a head; undefined when nothing is. */
export function flaw(head: Head, row: Row): string | undefined {
  if (row.id !== head.id + 1) return `row ${row.id} follows row ${head.id}`;
  if (row.prev_hash !== head.hash) return `row ${row.id} does not continue the chain`;
  if (row.prev_full_hash !== head.fullHash) return `row ${row.id} does not continue the full chain`;
  const { full_hash, ...covered } = row;
  if (sha256(row.prev_hash + row.execution_id + row.tool_name + row.agent_id + row.timestamp) !== row.hash) {
    return `row ${row.id} was changed: its hash is wrong`;
  }
  return sha256(canonical(covered)) === full_hash ? undefined : `row ${row.id} was changed: its full hash is wrong`;
}

function sha256(text: string): string {
  return createHash("sha256").update(text, "utf8").digest("hex");
}
