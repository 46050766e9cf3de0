/** A long run read cold: folded from its log, or taken as a snapshot out of Redis, which is what could be kept there instead. */
import { Redis } from "ioredis";
import { publish } from "../../bus/publish.ts";
import type { LogEntry } from "../../contracts/openwop/log.ts";
import { runRecord } from "../../test/kit/runrecord.ts";
import { systemClock } from "../../runtime/clock.ts";
import { systemIds } from "../../runtime/ids.ts";
import { RunLog } from "../../workers/runs/log.ts";
import type { Load } from "../case.ts";
import { awaited, runLoad } from "../kit/load.ts";
import { connectOurs } from "../kit/login.ts";
import { servePeer, setting } from "../kit/peer.ts";

export interface FoldLoad {
  readonly how: "log" | "snapshot";
  /** Events of the run, two to an append. */
  readonly events: number;
  readonly count: number;
}

const bus = await connectOurs("bench-runsfold");
const redis = new Redis(setting("REDIS_URL"));
const made = new Map<number, string>();

/** A loop of two nodes, for as long as it takes. */
async function long(events: number): Promise<string> {
  const runId = `fold-${process.pid}-${events}`;
  const run = runRecord(runId, { workflowId: "long", owner: { tenant: "bench-fold" } });
  const timestamp = new Date().toISOString();
  const event = (sequence: number, type: string, nodeId: string, payload: object): LogEntry["events"][number] => ({
    eventId: `${runId}-${sequence}`,
    runId,
    type,
    nodeId,
    payload,
    timestamp,
    sequence,
    schemaVersion: 1,
    engineVersion: "1",
  });
  const all: Promise<unknown>[] = [];
  for (let sequence = 0; sequence < events; sequence += 2) {
    const nodeId = `n${sequence % 8}`;
    const entry: LogEntry = {
      ...(sequence === 0 && { run }),
      events: [
        event(sequence, "node.started", nodeId, { nodeId, typeId: "core.noop", attempt: 0 }),
        event(sequence + 1, "node.completed", nodeId, { nodeId, outputs: { text: "x".repeat(200) }, durationMs: 1 }),
      ],
    };
    all.push(publish(bus, `log.runs.bench-fold.${runId}.step`, JSON.stringify(entry), { timeoutMs: 60_000 }));
    if (all.length >= 500) await Promise.all(all.splice(0));
  }
  await Promise.all(all);
  const { state } = await new RunLog(bus, systemClock, systemIds).get("bench-fold", runId);
  const { nodes, interrupts, children, fires, ...rest } = state;
  const maps = [nodes, interrupts, children, fires].map((map) => [...map]);
  await redis.set(runId, JSON.stringify({ ...rest, maps }));
  return runId;
}

servePeer({}, async ({ how, events, count }: FoldLoad): Promise<Load> => {
  const runId = made.get(events) ?? (await long(events));
  made.set(events, runId);
  return runLoad(
    count,
    1,
    awaited(async () => {
      if (how === "log") return new RunLog(bus, systemClock, systemIds).get("bench-fold", runId);
      return JSON.parse((await redis.get(runId)) ?? "") as unknown;
    }),
  );
});
