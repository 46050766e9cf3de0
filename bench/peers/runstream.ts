/**
 * One event from its append to whoever waits for it: over the edge's gRPC stream, or bare, from a publish to a consumer of this process. Both
 * write to the stream of runs, and both clocks start before the publish.
 */
import { publish } from "../../bus/publish.ts";
import { EngineDefinition } from "../../contracts/gen/openwop/v1/openwop.ts";
import { until } from "../../test/kit/until.ts";
import { grpcClient } from "../../test/kit/grpc.ts";
import type { Load } from "../case.ts";
import { awaited, runLoad } from "../kit/load.ts";
import { connectOurs } from "../kit/login.ts";
import { servePeer, setting } from "../kit/peer.ts";

export interface StreamLoad {
  readonly how: "stream" | "bare";
  /** Runs with a stream each, and appends under way: one per run. */
  readonly inFlight: number;
  readonly count: number;
}

const STREAM_FOR_MS = 10 * 60_000;
const bus = await connectOurs("bench-runstream");
const client = grpcClient(EngineDefinition, setting("BENCH_GRPC"));
const metadata = { authorization: `Bearer ${setting("BENCH_KEY")}` };

/** A place to append to, and someone who listens there. */
interface Line {
  readonly subject: string;
  readonly tree: string;
  /** The entry whose last event has this sequence. */
  readonly payload: (sequence: number) => string;
  sequence: number;
  streamSeq: number;
  arrived: ((sequence: number) => void) | undefined;
}

const lines = new Map<string, Line>();

/** A run that waits for an answer that never comes, so that nobody but us appends to it; and a client that listens. */
async function openRun(): Promise<Line> {
  const { run_id } = await client.call("createRun", { workflow_id: "conformance-approval" }, { metadata });
  const tree = `log.runs.default.${run_id}.*`;
  const line: Line = {
    subject: `log.runs.default.${run_id}.step`,
    tree,
    payload: (sequence) => JSON.stringify({ events: [eventOf(run_id, sequence)] }),
    sequence: -1,
    streamSeq: 0,
    arrived: undefined,
  };
  const asked = { run_id, last_sequence: -1n, stream_modes: ["debug"] };
  const listen = async (): Promise<void> => {
    for await (const { seq } of client.stream("streamRunEvents", asked, { metadata, timeoutMs: STREAM_FOR_MS })) {
      line.sequence = Number(seq);
      line.arrived?.(Number(seq));
    }
  };
  void listen();
  await until(async () => {
    const { snapshot } = await client.call("getRun", { run_id }, { metadata });
    return snapshot?.["status"] === "waiting-approval" && line.sequence >= 3;
  }, "the gate");
  const last = await bus.jsm.streams.getMessage("RUNS", { last_by_subj: tree });
  line.streamSeq = last?.seq ?? 0;
  return line;
}

async function openBare(at: number): Promise<Line> {
  const subject = `log.runs.bench-bare.${process.pid}-${at}.step`;
  const consumer = await bus.js.consumers.get("RUNS", { filter_subjects: [subject] });
  const messages = await consumer.consume({ max_messages: 100 });
  const line: Line = {
    subject,
    tree: subject,
    payload: (sequence) => JSON.stringify({ events: [eventOf("bare", sequence)] }),
    sequence: -1,
    streamSeq: 0,
    arrived: undefined,
  };
  const listen = async (): Promise<void> => {
    for await (const message of messages) {
      const { events } = message.json<{ events: { sequence: number }[] }>();
      line.arrived?.(events[0]?.sequence ?? -1);
    }
  };
  void listen();
  return line;
}

function eventOf(runId: string, sequence: number): object {
  return {
    eventId: `${runId}-${sequence}`,
    runId,
    type: "log.appended",
    payload: { level: "info", message: "x".repeat(200) },
    timestamp: new Date().toISOString(),
    sequence,
    schemaVersion: 1,
    engineVersion: "1",
  };
}

/** Resolves when the event has arrived and is acknowledged. */
async function deliver(line: Line): Promise<void> {
  const sequence = line.sequence + 1;
  line.sequence = sequence;
  const arrived = new Promise<void>((resolve) => {
    line.arrived = (seen) => {
      if (seen === sequence) resolve();
    };
  });
  const [stored] = await Promise.all([
    publish(bus, line.subject, line.payload(sequence), {
      expectLastSubjectSequence: line.streamSeq,
      expectLastSubject: line.tree,
    }),
    arrived,
  ]);
  line.streamSeq = stored.seq;
}

servePeer({}, async ({ how, inFlight, count }: StreamLoad): Promise<Load> => {
  const own: Line[] = [];
  for (let at = 0; at < inFlight; at++) {
    const known = lines.get(`${how}-${at}`) ?? (how === "stream" ? await openRun() : await openBare(at));
    lines.set(`${how}-${at}`, known);
    own.push(known);
  }
  return runLoad(
    count,
    inFlight,
    awaited(async () => {
      const line = own.pop();
      if (line === undefined) throw new Error("more in flight than lines");
      await deliver(line);
      own.push(line);
    }),
  );
});
