/** Durable publishes: ours beside the client library's, on one file stream. */
import type { BenchCase, BenchContext, Load, Row, Side } from "./case.ts";
import { decideTexts } from "./kit/decide.ts";
import { connectTo, loginOf } from "./kit/stack.ts";
import type { PublishLoad } from "./peers/publisher.ts";

const IN_FLIGHT = 64;
const SUBJECT = "log.bench.publish";

/** Ways of the server to write to the disk, with the publishes of one sample: about half a second of the slower side. */
const intervals = [
  { syncInterval: "2m", name: "synced every two minutes (the server's default)", count: 40_000, target: undefined },
  { syncInterval: "always", name: "synced on every write (as shipped)", count: 3_000, target: null },
] as const;

async function durable(ctx: BenchContext): Promise<Row[]> {
  const rows: Row[] = [];
  for (const { syncInterval, name, count, target } of intervals) {
    const servers = await ctx.servers({ syncInterval });
    const bus = await connectTo(servers, "operator", ctx.defer);
    await bus.jsm.streams.add({
      name: "BENCH",
      subjects: [SUBJECT],
      storage: "file",
      max_msgs: 100_000,
      discard: "old",
    });
    const publisher = await ctx.peer("publisher.ts", { env: loginOf(servers, "worker") });
    const payload = decideTexts[0] ?? "";
    const side = (label: string, how: PublishLoad["how"]): Side => ({
      label,
      processes: { publisher: publisher.pid, nats: servers.nats.pid ?? 0 },
      load: () =>
        publisher.ask<Load>({ how, subject: SUBJECT, payload, inFlight: IN_FLIGHT, count } satisfies PublishLoad),
    });
    const row = await ctx.compare({
      measure: `publishes ÷ js.publish(), ${name}`,
      over: side("ours", "ours"),
      under: side("js.publish()", "library"),
      ...(target !== undefined && {
        target,
        note: "every publish waits for the disk, which is the same for both: told for comparison, the target is about what a publish costs",
      }),
    });
    rows.push(row);
  }
  return rows;
}

export const cases: readonly BenchCase[] = [
  {
    name: "publish-durable",
    title: `Durable publishes with parsed acknowledgement and timeout ÷ js.publish() of the client, at ${IN_FLIGHT} in flight`,
    target: 3,
    aim: 4.5,
    run: durable,
  },
];
