import { spawn, type ChildProcess } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer, type AddressInfo, type Server as TcpServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { BeamlineError } from "../contracts/errors.ts";
import { findServers, serversDirectory } from "../deploy/local/find.ts";
import { freePort } from "../deploy/local/ports.ts";
import { makeCertificates, type Certificates } from "../test/kit/certificates.ts";
import { relayed } from "../test/kit/relay.ts";
import { startTestNats, type TestNats } from "../test/kit/servers.ts";
import { until } from "../test/kit/until.ts";
import { verifies } from "../test/kit/verifies.ts";
import { Bus } from "./connect.ts";
import { textOf } from "./headers.ts";

let nats: TestNats;
beforeAll(async () => {
  nats = await startTestNats({ syncInterval: "1m" });
});
afterAll(() => nats.stop());

test("nobody there: unavailable, with the address", async () => {
  const url = `nats://127.0.0.1:${await freePort()}`;
  await expect(Bus.connect({ url, name: "t", connectTimeoutMs: 1_000 })).rejects.toMatchObject({
    code: "unavailable",
    message: expect.stringContaining(url) as string,
  });
});

test("wrong credentials: unavailable, without the password", async () => {
  const attempt = Bus.connect({
    url: nats.server.url,
    name: "t",
    user: "worker",
    password: "wrong-secret",
    connectTimeoutMs: 2_000,
  });
  await expect(attempt).rejects.toMatchObject({ code: "unavailable" });
  await expect(attempt).rejects.not.toMatchObject({ message: expect.stringContaining("wrong-secret") as string });
});

verifies("clear-failure", "B4: what a listener throws is told, and the connection goes on reading", async () => {
  const bus = await nats.connect("faults");
  const faults: unknown[] = [];
  bus.onFault(({ message }, subject) => faults.push([subject, message]));
  const heard: string[] = [];
  bus.subscribe("beamline.test.fault", (message) => {
    heard.push(textOf(message));
    if (heard.length === 1) throw new BeamlineError("invalid_argument", "not this one");
  });
  bus.onReconnect(() => {
    throw new BeamlineError("internal", "not now");
  });
  for (const text of ["one", "two"]) bus.send("beamline.test.fault", text);
  await bus.flush();
  expect(heard).toEqual(["one", "two"]);
  expect(faults).toEqual([["beamline.test.fault", "not this one"]]);
  await bus.nc.reconnect();
  await until(() => faults.length === 2 && bus.connected, "the connection again");
  bus.send("beamline.test.fault", "three");
  await until(() => heard.length === 3, "the next message");
  expect(faults[1]).toEqual(["reconnect", "not now"]);
});

verifies(
  "clear-failure",
  "B5: a server whose host is gone is given up, calls fail at once, and another is found",
  async () => {
    await using relay = await relayed(nats.server.port);
    const url = `nats://127.0.0.1:${relay.port}`;
    const bus = await Bus.connect({ url, name: "cut", ...nats.credentials.worker, pingIntervalMs: 100 });
    const heard: string[] = [];
    bus.onDisconnect(({ code }) => heard.push(code));
    bus.onReconnect(() => heard.push("back"));
    relay.cut();
    await until(() => heard.includes("back"), "the connection to be given up and made again");
    expect(heard[0]).toBe("unavailable");
    await bus.flush();
    await bus.close();
  },
);

describe("a server that is too old", () => {
  let old: TcpServer;
  beforeAll(async () => {
    old = createServer((socket) => {
      socket.write(
        'INFO {"server_id":"old","version":"2.9.10","max_payload":1048576,"headers":true,"jetstream":true}\r\n',
      );
      socket.on("data", (chunk: Buffer) => chunk.includes("PING") && socket.write("PONG\r\n"));
      socket.on("error", () => socket.destroy());
    });
    await new Promise<void>((resolve) => old.listen(0, "127.0.0.1", resolve));
  });
  afterAll(() => void old.close());

  test("is refused with the reason", async () => {
    const url = `nats://127.0.0.1:${(old.address() as AddressInfo).port}`;
    await expect(Bus.connect({ url, name: "t" })).rejects.toMatchObject({
      code: "failed_precondition",
      message: expect.stringMatching(/2\.9\.10 .* too old: 2\.12/) as string,
    });
  });
});

test("a message beyond the server's limit is refused here, with its size", async () => {
  const bus = await nats.connect("t", "operator");
  expect(() => bus.send("x", "x".repeat(bus.maxPayload + 1))).toThrow(
    expect.objectContaining({ code: "message_too_large" }) as Error,
  );
  expect(() => bus.send("x", "é".repeat(bus.maxPayload / 2 + 1))).toThrow(
    expect.objectContaining({ code: "message_too_large" }) as Error,
  );
});

test.each(["", "a b", "a\r\nPUB b 0", "a\tb"])(
  "the subject %j is refused: it would say something else to the server",
  async (subject) => {
    const bus = await nats.connect("t", "operator");
    expect(() => bus.send(subject, "x")).toThrow(expect.objectContaining({ code: "invalid_argument" }) as Error);
    expect(() => bus.send("x", "x", undefined, subject)).toThrow(
      expect.objectContaining({ code: "invalid_argument" }) as Error,
    );
  },
);

test("B3: text and bytes of one tick arrive in order, with headers and reply", async () => {
  const bus = await nats.connect("t", "operator");
  const got: (readonly [string, string, string])[] = [];
  bus.nc.subscribe("order", {
    callback: (_error, message) =>
      void got.push([textOf(message), message.reply ?? "", message.headers?.get("a") ?? ""]),
  });
  await bus.flush();
  bus.send("order", "one");
  bus.send("order", Uint8Array.from([0x74, 0x77, 0x6f]), { a: "1" });
  bus.send("order", "drei €", { a: "ü" }, "back");
  await until(() => got.length === 3);
  expect(got).toEqual([
    ["one", "", ""],
    ["two", "", "1"],
    ["drei €", "back", "ü"],
  ]);
});

describe("TLS", () => {
  let certificates: Certificates;
  let server: ChildProcess;
  let folder: string;
  let port: number;
  beforeAll(async () => {
    certificates = await makeCertificates();
    folder = await mkdtemp(join(tmpdir(), "beamline-nats-tls-"));
    port = await freePort();
    const found = (await findServers(["nats"], serversDirectory())).get("nats");
    const files = [
      "--tlscert",
      certificates.file("server.crt"),
      "--tlskey",
      certificates.file("server.key"),
      "--tlscacert",
      certificates.file("ca.crt"),
    ];
    server = spawn(
      found?.binary ?? "nats-server",
      ["-a", "127.0.0.1", "-p", String(port), "-js", "-sd", folder, "--tlsverify", ...files],
      { stdio: "ignore" },
    );
  });
  afterAll(async () => {
    server?.kill();
    await certificates?.[Symbol.asyncDispose]();
    await rm(folder, { recursive: true, force: true });
  });

  test("both sides show their certificates; a client without one is refused", async () => {
    const own = {
      caFile: certificates.file("ca.crt"),
      certFile: certificates.file("client.crt"),
      keyFile: certificates.file("client.key"),
    };
    const url = `tls://localhost:${port}`;
    const bus = await until(() => Bus.connect({ url, name: "t", tls: own, connectTimeoutMs: 2_000 }));
    expect(bus.connected).toBe(true);
    await bus.close();
    await expect(
      Bus.connect({ url, name: "t", tls: { caFile: own.caFile }, connectTimeoutMs: 2_000 }),
    ).rejects.toMatchObject({ code: "unavailable" });
  });
});
