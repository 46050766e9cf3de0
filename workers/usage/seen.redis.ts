/**
 * What the usage workers remember together for a while: which results were metered, and when an assignment was accepted. Only a shortcut: the streams
 * know the same (message ids), so losing it costs time, never a second bill.
 */
import type { Redis } from "ioredis";
import { tokenOf } from "../../bus/keys.ts";

export interface Seen {
  /** Whether this result was metered. False when nobody remembers. */
  wasMetered(tenant: string, id: string): Promise<boolean>;
  /** Marks it, after its usage is stored. True when it was not marked before. */
  markMetered(tenant: string, id: string): Promise<boolean>;
  /** Remembers when a worker took an assignment. True when it was not known. Epoch milliseconds. */
  markAccepted(tenant: string, id: string, at: number): Promise<boolean>;
  acceptedAt(tenant: string, id: string): Promise<number | undefined>;
}

/** At least the contract's hour (BeamLine, idempotency), and longer than any message waits for its next try. */
const METERED_MS = 24 * 60 * 60 * 1000;
const ACCEPTED_MS = 2 * 60 * 60 * 1000;

/** Fails open: what Redis does not answer is not known. `onTrouble` is told. */
export function redisSeen(redis: Redis, onTrouble: (error: unknown) => void): Seen {
  const open = async <T>(run: () => Promise<T>, otherwise: T): Promise<T> => {
    try {
      return await run();
    } catch (error) {
      onTrouble(error);
      return otherwise;
    }
  };
  const metered = (tenant: string, id: string): string => `beamline:exec:${tokenOf(tenant)}:metered:${id}`;
  const accepted = (tenant: string, id: string): string => `beamline:exec:${tokenOf(tenant)}:accepted:${id}`;
  return {
    wasMetered: (tenant, id) => open(async () => (await redis.exists(metered(tenant, id))) === 1, false),
    markMetered: (tenant, id) =>
      open(async () => (await redis.set(metered(tenant, id), "1", "PX", METERED_MS, "NX")) === "OK", true),
    markAccepted: (tenant, id, at) =>
      open(async () => (await redis.set(accepted(tenant, id), String(at), "PX", ACCEPTED_MS, "NX")) === "OK", true),
    acceptedAt: (tenant, id) =>
      open<number | undefined>(async () => {
        const at = await redis.get(accepted(tenant, id));
        return at === null ? undefined : Number(at);
      }, undefined),
  };
}
