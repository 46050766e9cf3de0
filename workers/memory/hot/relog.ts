/**
 * What a worker that was killed had acknowledged and not logged yet: Redis has it still, so that the next one to start logs it. Otherwise it would be
 * gone with the next loss of Redis, however much later.
 *
 * It is what arrived after the last event of its tenant that is logged. Where other workers went on logging meanwhile, some of it may be older, and
 * stays in Redis alone.
 */
import { partOf } from "../../../bus/keys.ts";
import { readArrivals } from "../arrival.ts";
import type { Behind } from "./behind.ts";
import type { RedisHot } from "./hot.redis.ts";
import { metricOf } from "./hotbuild.ts";
import { METRIC_STREAM, type Entry, type MemoryLog } from "../log.ts";
import { RECENT, tenantOf } from "../record.ts";

/** Hands what Redis has and the log has not to what writes the log. Throws `unavailable` when either cannot be read. */
export async function relog(hot: RedisHot, log: MemoryLog, behind: Pick<Behind, "add">): Promise<void> {
  const events = await lastEvents(log);
  const metrics = await lastMetrics(log);
  for (const token of await hot.tenants()) {
    const tenant = partOf(token);
    const set = await hot.metricsSet(tenant);
    behind.add(
      await hot.arrivedAfter(tenant, events.get(tenant) ?? 0),
      set.filter(({ key, at }) => at > (metrics.get(`${token} ${key}`) ?? 0)),
    );
  }
}

/** Arrival of the last event that is logged, by tenant. */
async function lastEvents(log: MemoryLog): Promise<Map<string, number>> {
  const last = new Map<string, number>();
  for await (const entry of log.read({ stream: "MEMORY_RECENT", subjects: [`${RECENT}.>`], latest: true }))
    last.set(tenantOf(entry.subject), await endOf(log, entry));
  return last;
}

async function endOf(log: MemoryLog, entry: Entry): Promise<number> {
  try {
    return Math.max(...readArrivals(entry.subject, await log.text(entry)).map(({ at }) => at));
  } catch {
    return Infinity; // nobody can tell: what is logged once too often is worse than what is in Redis alone
  }
}

async function lastMetrics(log: MemoryLog): Promise<Map<string, number>> {
  const last = new Map<string, number>();
  for await (const entry of log.read({ stream: METRIC_STREAM, subjects: ["$KV.>"] })) {
    const metric = metricOf(entry);
    if (metric === undefined) continue;
    const key = `${entry.subject.split(".")[2] ?? ""} ${metric.key}`;
    last.set(key, Math.max(metric.at, last.get(key) ?? 0));
  }
  return last;
}
