/**
 * Runs from creation to their end, and bare guarded durable publishes beside them. The end of a run is seen in its log, as any reader of
 * the log sees it.
 */
import { Caller } from "../../bus/call.ts";
import { publish } from "../../bus/publish.ts";
import { header } from "../../contracts/headers.ts";
import type { Load } from "../case.ts";
import { awaited, runLoad } from "../kit/load.ts";
import { connectOurs } from "../kit/login.ts";
import { servePeer } from "../kit/peer.ts";

export interface RunsLoad {
  /** `runs`: create to terminal. `guarded`: `chain` publishes in a row, each checked against the one before. `publishes`: one each. */
  readonly how: "runs" | "guarded" | "publishes";
  readonly workflowId: string;
  readonly chain: number;
  readonly inFlight: number;
  readonly count: number;
}

const PAYLOAD = JSON.stringify({ events: [{ type: "node.completed", payload: { text: "x".repeat(200) } }] });
const headers = { [header.tenantId]: "bench", [header.principal]: "bench", [header.scopes]: "*" };

const bus = await connectOurs("bench-runs");
const caller = new Caller(bus);
const ended = new Set<string>();
const waiting = new Map<string, () => void>();
let unique = 0;

/** One reader of all ends, so that waiting for a run costs what reading its log costs. */
async function watchEnds(): Promise<void> {
  const consumer = await bus.js.consumers.get("RUNS", {
    filter_subjects: ["log.runs.bench.*.step"],
    deliver_policy: "new" as never,
  });
  const messages = await consumer.consume({ max_messages: 500 });
  for await (const message of messages) {
    if (!message.string().includes('"run.completed"')) continue;
    const runId = message.subject.split(".")[3] ?? "";
    const wake = waiting.get(runId);
    if (wake === undefined) ended.add(runId);
    else wake();
    waiting.delete(runId);
  }
}

async function run(workflowId: string): Promise<void> {
  const reply = (await caller.request(
    "openwop.rest.v1.create_run",
    { body: { workflowId } },
    { headers, timeoutMs: 10_000 },
  )) as { body: { runId: string } };
  const { runId } = reply.body;
  if (ended.delete(runId)) return;
  await new Promise<void>((resolve) => waiting.set(runId, resolve));
}

async function guarded(chain: number): Promise<void> {
  const id = `bare-${process.pid}-${unique++}`;
  for (let step = 0, last = 0; step < chain; step++) {
    const stored = await publish(bus, `log.runs.bench-bare.${id}.step`, PAYLOAD, {
      expectLastSubjectSequence: last,
      expectLastSubject: `log.runs.bench-bare.${id}.*`,
    });
    last = stored.seq;
  }
}

void watchEnds();
servePeer({}, ({ how, workflowId, chain, inFlight, count }: RunsLoad): Promise<Load> => {
  if (how === "runs")
    return runLoad(
      count,
      inFlight,
      awaited(() => run(workflowId)),
    );
  return runLoad(
    count,
    inFlight,
    awaited(() => guarded(how === "guarded" ? chain : 1)),
  );
});
