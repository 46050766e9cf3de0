/** Runs that all wait at once: created over gRPC, seen suspended in their logs, answered over gRPC, seen ended. */
import { EngineDefinition } from "../../contracts/gen/openwop/v1/openwop.ts";
import { grpcClient } from "../../test/kit/grpc.ts";
import type { Load } from "../case.ts";
import { awaited, runLoad } from "../kit/load.ts";
import { connectOurs } from "../kit/login.ts";
import { servePeer, setting } from "../kit/peer.ts";

export interface SuspendedLoad {
  /** `create` resolves when all are suspended, `answer` when all that are suspended have ended. */
  readonly how: "create" | "answer";
  readonly inFlight: number;
  readonly count: number;
}

const CALL_WITHIN_MS = 60_000;
const bus = await connectOurs("bench-suspended");
const client = grpcClient(EngineDefinition, setting("BENCH_GRPC"));
const metadata = { authorization: `Bearer ${setting("BENCH_KEY")}` };

/** Counts a mark in the logs of runs; `reached` resolves when so many more were seen. */
class Seen {
  readonly #mark: string;
  #count = 0;
  #wanted = 0;
  #resolve: (() => void) | undefined;

  constructor(mark: string) {
    this.#mark = mark;
  }

  look(text: string): void {
    if (!text.includes(this.#mark)) return;
    this.#count++;
    if (this.#count >= this.#wanted) this.#resolve?.();
  }

  more(count: number): Promise<void> {
    this.#wanted = this.#count + count;
    return new Promise((resolve) => (this.#resolve = resolve));
  }
}

const suspended = new Seen('"interrupt.requested"');
const ended = new Seen('"run.completed"');
const waiting: string[] = [];

async function watch(): Promise<void> {
  const consumer = await bus.js.consumers.get("RUNS", {
    filter_subjects: ["log.runs.default.*.step"],
    deliver_policy: "new" as never,
  });
  const messages = await consumer.consume({ max_messages: 500 });
  for await (const message of messages) {
    const text = message.string();
    suspended.look(text);
    ended.look(text);
  }
}
void watch();

servePeer({}, async ({ how, inFlight, count }: SuspendedLoad): Promise<Load> => {
  const settings = { metadata, timeoutMs: CALL_WITHIN_MS };
  const all = how === "create" ? suspended.more(count) : ended.more(count);
  const load = await runLoad(
    count,
    inFlight,
    awaited(async () => {
      if (how === "create") {
        const { run_id } = await client.call("createRun", { workflow_id: "conformance-approval" }, settings);
        waiting.push(run_id);
      } else {
        const run_id = waiting.pop() ?? "";
        const answer = { run_id, node_id: "gate", resume_value: { action: "accept" } };
        await client.call("resolveInterruptByRun", answer, settings);
      }
    }),
  );
  await all;
  return load;
});
