/**
 * Who executes a run, in hot state. It spares work done twice, and is not what makes that impossible: without Redis, or after its loss,
 * the log's compare-and-set and the invocation log still do (engine N1).
 */
import type { Redis } from "ioredis";
import type { Bus } from "../../../bus/connect.ts";
import { textOf } from "../../../bus/headers.ts";

export interface Lease {
  /** Takes the lease, or says false when another worker has it. */
  take(tenant: string, runId: string): Promise<boolean>;
  release(tenant: string, runId: string): Promise<void>;
  /** Tells whoever executes the run that its log has grown. */
  pokeOwner(tenant: string, runId: string): void;
  stop(): void;
}

/** Heard by every runs worker. */
export const POKE_SUBJECT = "beamline.runs.v1.poke";

const RENEW = `if redis.call("get", KEYS[1]) == ARGV[1] then return redis.call("pexpire", KEYS[1], ARGV[2]) else return 0 end`;
const RELEASE = `if redis.call("get", KEYS[1]) == ARGV[1] then return redis.call("del", KEYS[1]) else return 0 end`;
const TAKE = `local owner = redis.call("get", KEYS[1])
if owner and owner ~= ARGV[1] then return 0 end
redis.call("set", KEYS[1], ARGV[1], "PX", ARGV[2])
return 1`;

/** `workerId` names this process; a lease nobody renews ends after `leaseMs`. */
export function redisLease(
  redis: Redis,
  bus: Bus,
  workerId: string,
  leaseMs: number,
  onPoke: (tenant: string, runId: string) => void,
): Lease {
  const mine = new Set<string>();
  const keyOf = (tenant: string, runId: string): string => `beamline:runs:lease:${tenant}:${runId}`;
  const renewing = setInterval(() => {
    for (const key of mine) void redis.eval(RENEW, 1, key, workerId, leaseMs).catch(() => undefined);
  }, leaseMs / 3).unref();
  const subscription = bus.subscribe(POKE_SUBJECT, (message) => {
    const [tenant, runId] = textOf(message).split("\n");
    if (tenant !== undefined && runId !== undefined) onPoke(tenant, runId);
  });
  return {
    async take(tenant, runId) {
      const key = keyOf(tenant, runId);
      try {
        if ((await redis.eval(TAKE, 1, key, workerId, leaseMs)) !== 1) return false;
        mine.add(key);
      } catch {
        // Hot state is away: go on without.
      }
      return true;
    },
    async release(tenant, runId) {
      const key = keyOf(tenant, runId);
      if (!mine.delete(key)) return;
      await redis.eval(RELEASE, 1, key, workerId).catch(() => undefined);
    },
    pokeOwner(tenant, runId) {
      if (bus.connected) bus.send(POKE_SUBJECT, `${tenant}\n${runId}`);
    },
    stop() {
      clearInterval(renewing);
      subscription.unsubscribe();
    },
  };
}
