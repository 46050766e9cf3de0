/** Tasks of the control surface while the bus goes away, on a real server. */
import { expect } from "vitest";
import type { Caller } from "../../../bus/call.ts";
import type { Bus } from "../../../bus/connect.ts";
import { ensureBuckets, ensureStreams } from "../../../bus/streams.ts";
import type { CallContext } from "../../../contracts/handlers.ts";
import { buckets, streams } from "../../../contracts/streams.ts";
import { silentLogger } from "../../../runtime/log.ts";
import { about } from "../../../test/execution/kit.ts";
import { startTestNats } from "../../../test/kit/servers.ts";
import { until } from "../../../test/kit/until.ts";
import { verifies } from "../../../test/kit/verifies.ts";
import type { ControlRequest } from "./door.ts";
import { Records } from "./records.nats.ts";
import { Tasks } from "./tasks.ts";

/** Records whose connection is lost right after something was made. */
class Unlucky extends Records {
  readonly #bus: Bus;

  constructor(bus: Bus) {
    super(bus);
    this.#bus = bus;
  }

  override async make(...asked: Parameters<Records["make"]>): Promise<never> {
    const made = await super.make(...asked);
    void this.#bus.nc.reconnect();
    await until(() => !this.#bus.connected, "the connection to be lost");
    return made as never;
  }
}

verifies(
  "crash-safe",
  "T1: a task whose bus went away when its record was made is published once it is back",
  async () => {
    await using nats = await startTestNats({ syncInterval: "1m" });
    const bus = await nats.connect("worker-routing");
    await ensureStreams(bus, [streams.exec]);
    await ensureBuckets(bus, [buckets.control]);
    const tasks = new Tasks({
      bus,
      caller: {} as Caller,
      records: new Unlucky(bus),
      tell: () => undefined,
      decide: () => JSON.stringify({ decision: { provider_id: "p", reason: "weighted", priority: 50, metadata: {} } }),
      now: () => Date.now(),
      log: silentLogger,
    });
    const request: ControlRequest = {
      operation: "task.submit",
      prefix: "beamline.router.control.v1",
      tenant: "acme",
      requestId: "r",
      traceId: "t",
      key: "k",
      body: {},
      call: { traceparent: "" } as CallContext,
    };
    const asked = { task: { type: "chat", payload: { text: "hi" } }, context: {}, options: {} };
    const { task_id, status } = await tasks.submit(request, asked, {});
    expect(status).toBe("submitted");
    expect(await about(bus, "EXEC", "caf.exec.assign.v1", task_id)).toHaveLength(1);
  },
);
