/** Claim check: what is too large for a message goes to the object store, and the message carries where it is. */
import { randomUUID } from "node:crypto";
import { BeamlineError } from "../contracts/errors.ts";
import { objects } from "../contracts/streams.ts";
import type { Bus } from "./connect.ts";
import { ObjectStore, type ReadOptions, type StoredObject } from "./objects.ts";

/** Where the payload is, as a message carries it. Snake_case goes over the wire as it is. */
export type ClaimRef = StoredObject;

export interface CheckInOptions {
  /** Bytes up to which the payload stays in the message. Default: the bus limit, less what the headers may take. */
  readonly limitBytes?: number;
  /** Object name; the same name again replaces the object. Default a new random one, which nobody can guess. */
  readonly name?: string;
  readonly signal?: AbortSignal | undefined;
}

/** Room for headers that a payload of this size leaves in a message, bytes. */
const HEADROOM = 64 * 1024;

const spec = objects.payloads;

/** Stores bytes that do not fit a message and says where; undefined when they fit. Throws `unavailable`, `cancelled`. */
export async function checkIn(
  bus: Bus,
  bytes: Uint8Array,
  options: CheckInOptions = {},
): Promise<ClaimRef | undefined> {
  const { limitBytes = bus.maxPayload - HEADROOM, name = randomUUID(), signal } = options;
  if (bytes.length <= limitBytes) return undefined;
  return (await ObjectStore.open(bus, spec)).put(name, bytes, { signal });
}

/** The bytes of a claim. Throws `not_found` when they are gone, `data_loss` when they are not the ones checked in, `unavailable`. */
export async function redeem(bus: Bus, ref: ClaimRef, options: ReadOptions = {}): Promise<Uint8Array> {
  if (ref.bucket !== spec.name) throw new BeamlineError("not_found", `there is no payload store ${ref.bucket}`);
  const store = await ObjectStore.open(bus, spec);
  const found = await store.read(ref.name, options);
  if (found.digest !== ref.digest || found.size !== ref.size) {
    throw new BeamlineError("data_loss", `payload ${ref.name} is not the one that was checked in`);
  }
  const parts: Uint8Array[] = [];
  for await (const chunk of found.chunks) parts.push(chunk);
  return Buffer.concat(parts);
}

/** Gives the room back once nobody needs the claim any more. What is never released goes with the store's age limit. */
export async function release(bus: Bus, ref: ClaimRef): Promise<void> {
  if (ref.bucket === spec.name) await (await ObjectStore.open(bus, spec)).delete(ref.name);
}
