/** The audit log: on the disk before the answer, one chain whoever writes, checkpoints in time, and what was changed is found. */
import { createHash, createPublicKey, verify } from "node:crypto";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import type { Bus } from "../../../bus/connect.ts";
import { publish } from "../../../bus/publish.ts";
import { readStream } from "../../../bus/read.ts";
import { ensureBuckets, ensureStreams } from "../../../bus/streams.ts";
import { canonicalJson } from "../../../contracts/openwop/json.ts";
import { buckets, streams } from "../../../contracts/streams.ts";
import { systemClock, type Clock } from "../../../runtime/clock.ts";
import { startTestNats, type TestNats } from "../../../test/kit/servers.ts";
import { until } from "../../../test/kit/until.ts";
import { verifies } from "../../../test/kit/verifies.ts";
import { Audit, CHECKPOINT_ENTRIES, CHECKPOINT_SECONDS, type AuditEntry, type Checkpoint } from "./audit.ts";
import { Records } from "../records.ts";
import { sharedSecrets, type AuditKey } from "../secrets.ts";

const SUBJECT = "log.run_audit.entries";
const asker = { tenant: "acme", principal: "tester" };

interface Batch {
  entries: AuditEntry[];
  checkpoint?: Checkpoint;
}

let servers: TestNats[] = [];
let bus: Bus;
let key: AuditKey;
beforeAll(async () => {
  ({ bus, key } = await freshLog());
}, 60_000);
afterAll(() => Promise.all(servers.map((one) => one.stop())));

/** A log of its own, on a server of its own: entries cannot be taken out of one. */
async function freshLog(): Promise<{ bus: Bus; key: AuditKey }> {
  const nats = await startTestNats({ syncInterval: "10s" });
  servers = [...servers, nats];
  const own = await nats.connect("worker-runs");
  await ensureStreams(own, [streams.runAudit]);
  await ensureBuckets(own, [buckets.runSecrets]);
  const { audit } = await sharedSecrets(new Records(own, buckets.runSecrets), undefined);
  return { bus: own, key: audit };
}

async function batches(from: Bus = bus): Promise<Batch[]> {
  const found: Batch[] = [];
  for await (const message of readStream(from, "RUN_AUDIT", { subject: SUBJECT }))
    found.push(JSON.parse(message.string()) as Batch);
  return found;
}

const sha = (data: string | Buffer): Buffer => createHash("sha256").update(data).digest();

/** RFC 6962's tree, by its definition. */
function root(leaves: readonly string[]): Buffer {
  if (leaves.length === 1) return sha(Buffer.concat([Buffer.from([0]), Buffer.from(leaves[0] ?? "")]));
  let half = 1;
  while (half * 2 < leaves.length) half *= 2;
  return sha(Buffer.concat([Buffer.from([1]), root(leaves.slice(0, half)), root(leaves.slice(half))]));
}

class SetClock implements Clock {
  at = systemClock.now();
  now = (): number => this.at;
  micros = (): number => this.at * 1_000;
  monotonic = (): number => systemClock.monotonic();
  sleep = (ms: number, signal?: AbortSignal): Promise<void> => systemClock.sleep(ms, signal);
}

verifies("acked-is-durable", "an audit entry is on the disk before its caller hears of it", async () => {
  const [one, other] = [await Audit.open(bus, key, systemClock), await Audit.open(bus, key, systemClock)];
  const written = async (): Promise<string> => JSON.stringify((await batches()).at(-1));
  await one.record(asker, "webhook.registered", "hook-1", {});
  expect(await written()).toContain("hook-1");
  // Another worker wrote meanwhile: the chain has one order all the same.
  await other.record(asker, "webhook.registered", "hook-2", {});
  expect(await written()).toContain("hook-2");
  await Promise.all([one.stop(), other.stop()]);
});

test("an entry added in the very moment in which the writer finds nothing left is written all the same", async () => {
  const late: Promise<void>[] = [];
  const clock = new SetClock();
  const audit = await Audit.open(bus, key, clock);
  await audit.record(asker, "interrupt.resolved", "with the first checkpoint", {});
  let adding = false;
  const add = (target: string): Promise<void> => {
    adding = true;
    const added = audit.record(asker, "interrupt.resolved", target, {});
    adding = false;
    return added;
  };
  // For each append the writer looks at the time twice: before it, and at last, when nothing is left. What comes in right after that counts.
  let looks = 0;
  clock.now = () => {
    if (!adding && ++looks % 2 === 0 && late.length < 20) {
      const target = `late-${late.length}`;
      late.push(Promise.resolve().then(() => add(target)));
    }
    return clock.at;
  };
  await add("without one");
  await until(() => late.length === 20);
  await Promise.all(late);
  const targets = (await batches()).flatMap(({ entries }) => entries.map(({ target }) => target));
  expect(targets.filter((target) => target.startsWith("late-"))).toHaveLength(20);
  await audit.stop();
});

test("thousands of entries of two workers: one chain, and checkpoints that anybody can check", async () => {
  const writers = [await Audit.open(bus, key, systemClock), await Audit.open(bus, key, systemClock)];
  for (let round = 0; round < 4; round++) {
    for (let at = 0; at < 650; at++) writers[at % 2]?.note(asker, "run.created", `run-${round}-${at}`, { at });
    await Promise.all(writers.map((one) => one.flush()));
  }
  const all = await batches();
  const entries = all.flatMap((batch) => batch.entries);
  expect(entries.map(({ sequence }) => sequence)).toEqual(entries.map((_, at) => at));
  entries.forEach(({ prevHash }, at) => {
    const before = entries[at - 1];
    expect(prevHash).toBe(before === undefined ? null : sha(canonicalJson(before)).toString("hex"));
  });
  expect(entries[7]).toMatchObject({
    ts: expect.any(String),
    tenant: "acme",
    principal: "tester",
    action: expect.any(String),
  });
  const checkpoints = all.flatMap(({ checkpoint }) => checkpoint ?? []);
  const publicKey = createPublicKey({ key: Buffer.from(key.publicKey, "base64"), format: "der", type: "spki" });
  let previous = -1;
  for (const { signature, ...signed } of checkpoints) {
    expect(signed.atSequence - previous).toBeLessThanOrEqual(CHECKPOINT_ENTRIES);
    previous = signed.atSequence;
    const leaves = entries.slice(0, signed.atSequence + 1).map((entry) => canonicalJson(entry));
    expect(signed.merkleRoot).toBe(root(leaves).toString("hex"));
    expect(verify(null, Buffer.from(canonicalJson(signed)), publicKey, Buffer.from(signature, "base64"))).toBe(true);
  }
  expect(entries.length - 1 - previous).toBeLessThan(CHECKPOINT_ENTRIES);
  expect(checkpoints.length).toBeGreaterThanOrEqual(3);
  const [writer] = writers;
  expect(await writer?.verify(0, 1_000_000)).toEqual({
    fromSeq: 0,
    toSeq: 1_000_000,
    chainValid: true,
    checkpointsValid: true,
    checkpoints,
    anomalies: [],
  });
  const [, second] = checkpoints;
  const only = { fromSeq: second?.atSequence, toSeq: second?.atSequence, checkpoints: [second] };
  expect(await writer?.verify(second?.atSequence ?? 0, second?.atSequence ?? 0)).toMatchObject(only);
  await Promise.all(writers.map((one) => one.stop()));
});

verifies(
  "effect-once",
  "a server killed while entries are written: what was recorded is there once, what was refused at most once",
  async () => {
    const log = await freshLog();
    const nats = servers.at(-1);
    const writers = [await Audit.open(log.bus, log.key, systemClock), await Audit.open(log.bus, log.key, systemClock)];
    const outcomes = new Map<string, boolean>();
    const recording = Array.from({ length: 8 }, async (_, lane) => {
      for (let at = 0; at < 60; at++) {
        const target = `${lane}-${at}`;
        const recorded = writers[lane % 2]?.record(asker, "run.cancelled", target, {});
        outcomes.set(
          target,
          await Promise.resolve(recorded).then(
            () => true,
            () => false,
          ),
        );
      }
    });
    for (let kills = 0; kills < 2; kills++) {
      const before = outcomes.size;
      await until(() => outcomes.size > before + 60, "some entries");
      await nats?.server.kill();
      await nats?.server.restart();
    }
    await Promise.all(recording);
    await Promise.all(writers.map((one) => one.stop()));
    const entries = await until(
      async () => (await batches(log.bus)).flatMap((batch) => batch.entries),
      "the log",
      30_000,
    );
    const counts = new Map<string, number>();
    for (const { target } of entries) counts.set(target, (counts.get(target) ?? 0) + 1);
    expect(outcomes.size).toBe(480);
    for (const [target, recorded] of outcomes) {
      if (recorded) expect([target, counts.get(target)]).toEqual([target, 1]);
      else expect(counts.get(target) ?? 0).toBeLessThanOrEqual(1);
    }
    const checker = await Audit.open(log.bus, log.key, systemClock);
    expect(await checker.verify(0, 10_000)).toMatchObject({ chainValid: true, checkpointsValid: true, anomalies: [] });
    await checker.stop();
  },
  { timeout: 90_000 },
);

test("a checkpoint comes in time, also when the worker that wrote the entries is gone", async () => {
  vi.useFakeTimers({ toFake: ["setInterval", "clearInterval"] });
  const clock = new SetClock();
  const log = await freshLog();
  const idle = await Audit.open(log.bus, log.key, clock);
  const busy = await Audit.open(log.bus, log.key, clock);
  await busy.record(asker, "run.cancelled", "a", {});
  await busy.record(asker, "run.cancelled", "b", {});
  const made = async (): Promise<number[]> =>
    (await batches(log.bus)).flatMap(({ checkpoint }) => checkpoint?.atSequence ?? []);
  expect(await made()).toEqual([0]);
  await busy.stop();
  clock.at += (CHECKPOINT_SECONDS - 14) * 1_000;
  vi.advanceTimersByTime(15_000);
  await until(async () => (await made()).length === 2, "the checkpoint of the second entry");
  expect(await made()).toEqual([0, 1]);
  vi.useRealTimers();
  await idle.stop();
});

test("an entry that was changed is found by the one after it, a checkpoint that was forged by its signature", async () => {
  const [original, forged] = [await freshLog(), await freshLog()];
  const audit = await Audit.open(original.bus, original.key, systemClock);
  for (let at = 0; at < 6; at++) await audit.record(asker, "run.cancelled", `run-${at}`, {});
  await audit.stop();
  const all = await batches(original.bus);
  for (const batch of all) {
    const entries = batch.entries.map((one) => (one.sequence === 3 ? { ...one, principal: "somebody else" } : one));
    await publish(forged.bus, SUBJECT, JSON.stringify({ ...batch, entries }));
  }
  const changed = await Audit.open(forged.bus, original.key, systemClock);
  const [third, fourth] = all.flatMap(({ entries }) => entries).slice(3, 5);
  const expectedPrevHash = sha(canonicalJson({ ...third, principal: "somebody else" })).toString("hex");
  const anomaly = { atSeq: 4, expectedPrevHash, actualPrevHash: fourth?.prevHash };
  expect(await changed.verify(0, 100)).toMatchObject({ chainValid: false, anomalies: [anomaly] });
  expect(await changed.verify(0, 3)).toMatchObject({ chainValid: true, anomalies: [] });
  const stranger = await Audit.open(original.bus, forged.key, systemClock);
  const found = { chainValid: false, checkpointsValid: false, anomalies: [] };
  expect(await stranger.verify(0, 100)).toMatchObject(found);
});

test("a stream made before, which could schedule, refuses what it can and does not hinder the start", async () => {
  const nats = await startTestNats({ syncInterval: "10s" });
  servers = [...servers, nats];
  const own = await nats.connect("operator", "operator");
  const { appendOnly: _appendOnly, ...before } = streams.runAudit;
  await ensureStreams(own, [{ ...before, schedules: true }]);
  const [updated] = await ensureStreams(own, [streams.runAudit]);
  expect(updated).toEqual({ stream: "RUN_AUDIT", outcome: "updated", kept: ["deny_purge"] });
  expect((await own.jsm.streams.info("RUN_AUDIT")).config).toMatchObject({ deny_delete: true, deny_purge: false });
  expect(await ensureStreams(own, [streams.runAudit])).toMatchObject([{ outcome: "unchanged" }]);
});

test("the stream itself refuses to take an entry out", async () => {
  const operator = await servers[0]?.connect("operator", "operator");
  await expect(operator?.jsm.streams.deleteMessage("RUN_AUDIT", 1)).rejects.toThrow(/delete not permitted/i);
  await expect(operator?.jsm.streams.purge("RUN_AUDIT")).rejects.toThrow(/purge not permitted/i);
  const back = { deny_delete: false, deny_purge: false };
  await expect(operator?.jsm.streams.update("RUN_AUDIT", back)).rejects.toThrow(/can not cancel deny/i);
});
