/**
 * What nobody comes back for: executions whose worker vanished are recorded as unknown, approvals nobody decided as denied, trash that nobody
 * wants back goes. Every worker sweeps; what is found is settled once, by compare-and-set.
 */
import { readdir, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { isoMicros } from "../../runtime/clock.ts";
import type { Approvals } from "./approval.ts";
import { isConflict } from "./executions.ts";
import { TRASH } from "./files/confine.ts";
import type { PipelinePorts } from "./pipeline.ts";

const EVERY_MS = 30_000;
/** How far back executions are looked at: longer than any tool may run, and than a host may take to come back. */
const BACK_MS = 24 * 60 * 60 * 1000;
const TRASH_MS = 30 * 24 * 60 * 60 * 1000;

/** Sweeps now and then again and again. Close it to stop. */
export function openSweeper(ports: PipelinePorts, approvals: Approvals): { close(): Promise<void> } {
  const stop = new AbortController();
  const running = (async () => {
    while (!stop.signal.aborted) {
      try {
        await sweep(ports, approvals);
      } catch (thrown) {
        ports.log.warn("sweeping failed and is tried again", { error: thrown });
      }
      await ports.clock.sleep(EVERY_MS, stop.signal).catch(() => undefined);
    }
  })();
  return {
    async close() {
      stop.abort();
      await running;
    },
  };
}

/** One round; returns how many executions were found abandoned. */
export async function sweep(ports: PipelinePorts, approvals: Approvals): Promise<number> {
  const now = ports.clock.now();
  const abandoned = await ports.executions.abandoned(now - BACK_MS, now);
  let settled = 0;
  for (const known of abandoned) {
    const { execution_id, tenant, tool_name, agent_id, task_id, reason, started_at, node, backup_id } = known.execution;
    const error = "outcome unknown: the worker vanished while the tool ran";
    try {
      await ports.executions.change(known, { state: "unknown", success: false, error }, now);
    } catch (thrown) {
      if (isConflict(thrown)) continue; // somebody else settled it
      throw thrown;
    }
    settled++;
    await ports.ledger.append(tenant, {
      execution_id,
      tool_name,
      agent_id,
      task_id,
      reason,
      success: false,
      duration_ms: now - started_at,
      timestamp: isoMicros(ports.clock.micros()),
      error,
      node,
      ...(backup_id !== "" && { backup_id }),
    });
  }
  for (const tenant of await approvals.tenants()) await approvals.expire(tenant);
  for (const root of ports.host.files.roots) await emptyTrash(join(root, TRASH), now);
  return settled;
}

async function emptyTrash(trash: string, now: number): Promise<void> {
  for (const bin of await readdir(trash).catch(() => [])) {
    const path = join(trash, bin);
    const made = (await stat(path).catch(() => undefined))?.ctimeMs ?? now;
    if (now - made > TRASH_MS) await rm(path, { recursive: true, force: true });
  }
}
