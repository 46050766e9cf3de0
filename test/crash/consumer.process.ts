/** A durable consumer in a process of its own, to be killed. Writes the id of every message it has handled to a file. */
import { appendFileSync } from "node:fs";
import { Bus } from "../../bus/connect.ts";
import { consume } from "../../bus/consume.ts";
import { BeamlineError } from "../../contracts/errors.ts";
import type { StreamSpec } from "../../contracts/streams.ts";

const [url = "", user = "", password = "", inboxPrefix = "", file = ""] = process.argv.slice(2);

export const crashStream: StreamSpec = {
  name: "CRASH",
  purpose: "a test",
  subjects: ["log.crash.>", "retry.crash.>", "sched.crash.>"],
  retention: "limits",
  maxAgeMs: 0,
  maxBytes: -1,
  duplicateWindowMs: 120_000,
  schedules: true,
  atomic: true,
};

if (url !== "") {
  const bus = await Bus.connect({ url, name: "crash", user, password, inboxPrefix });
  const consumption = await consume(bus, {
    stream: crashStream,
    durable: "crash",
    filterSubjects: ["log.crash.>"],
    concurrency: 8,
    ackWaitMs: 1_000,
    maxDeliver: 50,
    backoffMs: [20],
    handler: async (payload, { attempt }) => {
      const id = Buffer.from(payload).toString();
      await new Promise((resolve) => setTimeout(resolve, 2));
      if (attempt === 1 && id.endsWith("3")) throw new BeamlineError("unavailable", "once more");
      appendFileSync(file, `${id}\n`);
    },
  });
  process.on("SIGTERM", () => void consumption.stop(Date.now() + 2_000).then(() => bus.drain()));
  process.send?.("ready");
}
