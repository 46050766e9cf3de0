import { mkdtempDisposableSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { AckPolicy, DeliverPolicy, jetstream, jetstreamManager } from "@nats-io/jetstream";
import { Kvm } from "@nats-io/kv";
import { Objm } from "@nats-io/obj";
import { connect, errors } from "@nats-io/transport-node";
import type { NatsConnection } from "@nats-io/transport-node";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { until } from "../../test/kit/until.ts";
import { startNats } from "./servers.ts";
import type { ManagedServer, NatsUser } from "./servers.ts";
import { loadCredentials } from "./credentials.ts";

// Every user of nats.conf against a real server. "anonymous" sends no credentials, as existing BeamLine and aiOS programs do.

type Who = NatsUser | "anonymous";

const directory = mkdtempDisposableSync(join(tmpdir(), "beamline-permissions-"));
let server: ManagedServer;

beforeAll(async () => {
  server = await startNats({ dataDir: directory.path, ports: "free", syncInterval: "1m" });
  await using setUp = await connectAs("worker");
  const jsm = await jetstreamManager(setUp.nc);
  await jsm.streams.add({
    name: "EXEC",
    subjects: ["caf.exec.assign.v1", "caf.exec.result.v1"],
  });
  await jsm.streams.add({ name: "EXEC_ACKS", subjects: ["caf.exec.assign.v1.ack"] });
  await jsm.streams.add({ name: "MEMORY", subjects: ["log.memory.>"] });
  const bucket = await new Kvm(setUp.nc).create("policies");
  await bucket.put("key", "value");
  await new Objm(setUp.nc).create("payloads");
});

afterAll(async () => {
  await server.stop();
  directory.remove();
});

interface Connected extends AsyncDisposable {
  readonly nc: NatsConnection;
  /** The subjects this user was refused so far. */
  refused(): Promise<string[]>;
}

async function connectAs(who: Who): Promise<Connected> {
  const login = who === "anonymous" ? undefined : loadCredentials(directory.path)[who];
  const nc = await connect({
    servers: server.url,
    ...(login === undefined ? {} : { user: login.user, pass: login.password, inboxPrefix: login.inboxPrefix }),
  });
  const subjects: string[] = [];
  void (async () => {
    for await (const status of nc.status()) {
      if (status.type === "error" && status.error instanceof errors.PermissionViolationError)
        subjects.push(status.error.subject);
    }
  })();
  return {
    nc,
    async refused() {
      await nc.flush(); // The server answers in order: a refusal comes before this answer.
      await new Promise(setImmediate);
      return subjects;
    },
    [Symbol.asyncDispose]: () => nc.close(),
  };
}

const may: Record<Who, { publish: string[]; subscribe: string[] }> = {
  edge: {
    publish: [
      "beamline.router.v1.decide",
      "beamline.router.v1.admin.upsert_policy",
      "beamline.provider.v1.invoke",
      "aios.memory.v1.push_event",
      "openwop.v1.create_run",

      "$SRV.PING",
      "_INBOX_WORKER.x.y",
      "$JS.API.CONSUMER.CREATE.MEMORY.x.log.memory.y",
    ],
    subscribe: ["_INBOX_EDGE.x.*"],
  },
  worker: {
    publish: [
      "log.memory.x",
      "sched.exec.x",
      "retry.exec.x",
      "dlq.x",
      "$KV.policies.x",
      "caf.exec.assign.v1",
      "_INBOX.x",
      "_INBOX_EDGE.x",
      "_INBOX_OP.x",
    ],
    subscribe: [
      "beamline.router.v1.decide",
      "aios.tools.v1.execute",
      "openwop.v1.>",
      "caf.exec.result.v1",

      "$SRV.PING",
      "_INBOX_WORKER.>",
    ],
  },
  publisher: {
    publish: [
      "beamline.router.v1.decide",
      "aios.tools.v1.execute",
      "caf.exec.result.v1",
      "caf.status.heartbeat.v1",
      "caf.deadletter.v1",
    ],
    subscribe: [
      "_INBOX.x.*",
      "caf.exec.assign.v1",
      "beamline.provider.mine.v1",
      "beamline.ext.pre.mine.v1",
      "beamline.router.v1.decide.reply",
    ],
  },
  anonymous: { publish: ["beamline.router.v1.decide", "openwop.v1.create_run"], subscribe: ["_INBOX.x.*"] },
  operator: { publish: ["anything", "log.memory.x", "$JS.API.STREAM.DELETE.NONE"], subscribe: [">"] },
};

const mayNot: Record<Exclude<Who, "operator">, { publish: string[]; subscribe: string[] }> = {
  edge: {
    publish: [
      "log.memory.x",
      "$KV.policies.x",
      "$O.other.x",
      "sched.exec.x",
      "dlq.x",
      "caf.exec.assign.v1",
      "caf.exec.result.v1",
      "beamline.usage.v1.metered",
      "beamline.router.v1.decide.dlq",
      "$JS.API.STREAM.CREATE.X",
      "$JS.API.STREAM.PURGE.MEMORY",
      "$JS.API.STREAM.DELETE.MEMORY",
    ],
    subscribe: ["_INBOX_WORKER.>", "_INBOX.>", "_INBOX_OP.>", "beamline.router.v1.decide", "log.>", "$KV.>", ">"],
  },
  worker: {
    publish: ["$JS.API.STREAM.DELETE.MEMORY", "$JS.API.STREAM.RESTORE.MEMORY", "$SYS.REQ.SERVER.PING", "elsewhere"],
    subscribe: ["_INBOX.>", "_INBOX_EDGE.>", "_INBOX_OP.>", "log.>", "$KV.>", ">"],
  },
  publisher: {
    publish: [
      "log.memory.x",
      "sched.exec.x",
      "dlq.x",
      "$KV.policies.x",
      "$O.payloads.x",
      "caf.exec.assign.v1",
      "beamline.usage.v1.metered",
      "beamline.router.v1.decide.reply",
      "beamline.router.v1.decide.dlq",

      "_INBOX.x",
      "_INBOX_EDGE.x",
      "_INBOX_WORKER.x",
      "$SRV.PING",
      "$JS.ACK.EXEC.x.1.1.1.1.0",
      "$JS.API.DIRECT.GET.KV_policies.$KV.policies.key",
      "$JS.API.STREAM.MSG.GET.KV_policies",
      "$JS.API.CONSUMER.CREATE.MEMORY",
      "$JS.API.CONSUMER.CREATE.KV_policies.x.y",
      "$JS.API.CONSUMER.MSG.NEXT.MEMORY.x",
      "$JS.API.STREAM.DELETE.EXEC",
      // Taking from the consumers metering, deadlines and acknowledgements go by would be taking a bill or a timer away.
      "$JS.API.CONSUMER.MSG.NEXT.EXEC.router-results",
      "$JS.API.CONSUMER.MSG.NEXT.EXEC.router-deadlines",
      "$JS.API.CONSUMER.MSG.NEXT.EXEC_ACKS.router-acks",
      "$JS.API.CONSUMER.DURABLE.CREATE.EXEC.router-results",
      "$JS.API.CONSUMER.CREATE.EXEC.router-results",
      "$JS.API.CONSUMER.CREATE.EXEC.router-results.caf.exec.result.v1",
      "$JS.API.CONSUMER.DURABLE.CREATE.EXEC.exec-workers",
      "$JS.API.CONSUMER.CREATE.EXEC.exec-workers.caf.exec.assign.v1",
      "$JS.API.CONSUMER.CREATE.EXEC_ACKS.router-acks.caf.exec.assign.v1.ack",
    ],
    subscribe: [
      "_INBOX_EDGE.>",
      "_INBOX_WORKER.>",
      "_INBOX_OP.>",
      "*.>",
      "$KV.>",
      "log.>",
      "beamline.router.v1.decide",
      "beamline.provider.v1.invoke",
      "beamline.provider.v1.>",
      "aios.tools.v1.execute",
      "openwop.v1.>",
    ],
  },
  anonymous: { publish: ["log.memory.x", "$KV.policies.x"], subscribe: ["$KV.>", "_INBOX_EDGE.>", ">"] },
};

describe.each(Object.entries(may) as [Who, (typeof may)[Who]][])("%s may", (who, { publish, subscribe }) => {
  test(`publish ${publish.join(" ")} and listen to ${subscribe.join(" ")}`, async () => {
    await using user = await connectAs(who);
    for (const subject of publish) user.nc.publish(subject);
    for (const subject of subscribe) user.nc.subscribe(subject, { callback: () => {} });
    expect(await user.refused()).toEqual([]);
  });
});

describe.each(Object.entries(mayNot) as [Who, (typeof may)[Who]][])("%s may not", (who, { publish, subscribe }) => {
  test(`publish ${publish.join(" ")}`, async () => {
    await using user = await connectAs(who);
    for (const subject of publish) user.nc.publish(subject);
    expect(await user.refused()).toEqual(publish);
  });

  test(`listen to ${subscribe.join(" ")}`, async () => {
    await using user = await connectAs(who);
    for (const subject of subscribe) user.nc.subscribe(subject, { callback: () => {} });
    expect(await user.refused()).toEqual(subscribe);
  });
});

test("wrong credentials are refused", async () => {
  await expect(connect({ servers: server.url, user: "edge", pass: "guess", maxReconnectAttempts: 0 })).rejects.toThrow(
    /[Aa]uthorization/,
  );
});

test("a request of each user reaches a worker, and its answer comes back", async () => {
  await using worker = await connectAs("worker");
  worker.nc.subscribe("beamline.router.v1.decide", {
    queue: "routing",
    callback: (_error, message) => void message.respond("decided"),
  });
  await worker.nc.flush();
  for (const who of ["edge", "worker", "anonymous", "publisher", "operator"] as const) {
    await using client = await connectAs(who);
    expect((await client.nc.request("beamline.router.v1.decide", "{}", { timeout: 2_000 })).string()).toBe("decided");
  }
});

test("an outside provider answers the worker that asks it, more than once, and nobody who does not", async () => {
  await using provider = await connectAs("anonymous");
  await using worker = await connectAs("worker");
  provider.nc.subscribe("beamline.provider.mine.v1", {
    callback: (_error, message) => {
      message.respond("one");
      message.respond("two");
    },
  });
  await provider.nc.flush();
  const inbox = "_INBOX_WORKER.stream";
  const heard: string[] = [];
  worker.nc.subscribe(inbox, { callback: (_error, message) => void heard.push(message.string()) });
  worker.nc.publish("beamline.provider.mine.v1", "{}", { reply: inbox });
  await until(() => heard.length === 2);
  provider.nc.publish("_INBOX_WORKER.other", "unasked");
  expect(await provider.refused()).toEqual(["_INBOX_WORKER.other"]);
});

test.each([
  ["results", "caf.exec.result.v1", "EXEC", "gateway-results"],
  ["acknowledgements of assignments", "caf.exec.assign.v1.ack", "EXEC_ACKS", "gateway-acks"],
])(
  "an outside program consumes %s through JetStream by a name of its own, and its acknowledgements count",
  async (_, subject, stream, durable) => {
    await using worker = await connectAs("worker");
    await using gateway = await connectAs("anonymous");
    await jetstream(gateway.nc).publish(subject, "{}"); // With the acknowledgement of the stream.
    const jsm = await jetstreamManager(gateway.nc, { checkAPI: false });
    expect(await jsm.streams.find(subject)).toBe(stream);
    await jsm.consumers.add(stream, {
      durable_name: durable,
      ack_policy: AckPolicy.Explicit,
      filter_subject: subject,
      deliver_policy: DeliverPolicy.Last,
    });
    const consumer = await jetstream(gateway.nc).consumers.get(stream, durable);
    const message = await consumer.next({ expires: 2_000 });
    expect(message?.string()).toBe("{}");
    expect(await message?.ackAck()).toBe(true);
    const info = await (await jetstreamManager(worker.nc)).consumers.info(stream, durable);
    expect([info.num_ack_pending, info.num_pending]).toEqual([0, 0]);
    expect(await gateway.refused()).toEqual([]);
  },
);

test("the edge reads logs and buckets, keeps payloads, and writes nothing else", async () => {
  await using worker = await connectAs("worker");
  await using edge = await connectAs("edge");
  await jetstream(worker.nc).publish("log.memory.seen", "logged");
  const log = await jetstream(edge.nc).consumers.get("MEMORY", { filter_subjects: ["log.memory.seen"] });
  expect((await log.next({ expires: 2_000 }))?.string()).toBe("logged");

  const bucket = await new Kvm(edge.nc).open("policies");
  expect((await bucket.get("key"))?.string()).toBe("value");
  const watch = await bucket.watch();
  for await (const entry of watch) {
    expect(entry.key).toBe("key");
    break;
  }

  const payloads = await new Objm(edge.nc).open("payloads");
  await payloads.putBlob({ name: "big" }, new Uint8Array(300_000));
  expect((await payloads.getBlob("big"))?.length).toBe(300_000);
  expect(await edge.refused()).toEqual([]);
});
