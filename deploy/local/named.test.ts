import { once } from "node:events";
import { mkdtempDisposableSync } from "node:fs";
import { connect, createServer } from "node:net";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { namedNats, namedRedis } from "./named.ts";
import { LOOPBACK, freePort } from "./ports.ts";
import { startNats, startRedis } from "./servers.ts";

/** Something that greets whoever connects with these bytes: it stands for a server that cannot be had here (an old one, another kind). */
async function greeter(greeting: string) {
  const server = createServer((socket) => {
    socket.on("error", () => {});
    socket.write(greeting);
    socket.on("data", () => socket.write(greeting));
  });
  server.listen(0, LOOPBACK);
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  return { port, [Symbol.asyncDispose]: async () => void server.close() };
}

const info = (fields: object) => `INFO ${JSON.stringify({ server_id: "X", max_payload: 1048576, ...fields })} \r\n`;

describe("a NATS server named by NATS_URL", () => {
  test("is refused when it is too old, with the reason and without its password", async () => {
    await using old = await greeter(info({ version: "2.9.10", jetstream: true }));
    const refusal = startNats({ dataDir: "/nonexistent", natsUrl: `nats://me:secret@${LOOPBACK}:${old.port}` });
    await expect(refusal).rejects.toThrow(
      `nats://${LOOPBACK}:${old.port} (named by NATS_URL) runs nats-server 2.9.10, older than 2.12: it has no scheduled messages`,
    );
    await expect(refusal).rejects.not.toThrow("secret");
  });

  test("is used as it is when it is recent enough, also when it will ask for TLS next", async () => {
    await using recent = await greeter(info({ version: "2.12.1", jetstream: true, tls_required: true }));
    const nats = await startNats({ dataDir: "/nonexistent", natsUrl: `tls://${LOOPBACK}:${recent.port}` });
    expect(nats).toMatchObject({ name: "nats", version: "2.12.1", port: recent.port, started: false });
    await nats.stop();
    await expect(nats.kill()).rejects.toThrow("was not started here");
  });

  test("may be any of a list", async () => {
    await using recent = await greeter(info({ version: "2.12.1", jetstream: true }));
    const nobody = await freePort();
    expect(await namedNats(`nats://${LOOPBACK}:${nobody}, ${LOOPBACK}:${recent.port}`)).toMatchObject({
      port: recent.port,
    });
  });

  test("is told apart from nobody, from something else and from nonsense", async () => {
    const nobody = await freePort();
    await expect(namedNats(`nats://${LOOPBACK}:${nobody}`)).rejects.toThrow(/NATS_URL names can be used.*ECONNREFUSED/);
    await using web = await greeter("HTTP/1.1 400 Bad Request\r\n\r\n");
    await expect(namedNats(`nats://${LOOPBACK}:${web.port}`)).rejects.toThrow("not a NATS server");
    await expect(namedNats("nats://:::")).rejects.toThrow("NATS_URL is not a URL");
  });
});

describe("a Redis server named by REDIS_URL", () => {
  test("is refused when it is too old", async () => {
    const text = "# Server\r\nredis_version:6.0.16\r\nprocess_id:1\r\nloading:0\r\n";
    await using old = await greeter(`$${text.length}\r\n${text}\r\n`);
    await expect(startRedis({ dataDir: "/nonexistent", redisUrl: `redis://${LOOPBACK}:${old.port}` })).rejects.toThrow(
      `redis://${LOOPBACK}:${old.port} (named by REDIS_URL) runs redis-server 6.0.16, older than 7: it has no functions`,
    );
  });

  test("is asked with the login of its URL, and a missing or wrong one is said", async () => {
    using directory = mkdtempDisposableSync(join(tmpdir(), "beamline-redis-"));
    await using redis = await startRedis({ dataDir: directory.path, ports: "free" });
    const at = `${LOOPBACK}:${redis.port}`;
    expect(await namedRedis(redis.url)).toMatchObject({ version: redis.version });
    await command(redis.port, ["CONFIG", "SET", "requirepass", "p@ss"]);
    await expect(namedRedis(`redis://${at}`)).rejects.toThrow(/wants a password/);
    await expect(namedRedis(`redis://:wrong@${at}`)).rejects.toThrow(/WRONGPASS/);
    expect(await namedRedis(`redis://:p%40ss@${at}`)).toMatchObject({ port: redis.port });
  });

  test("is told apart from something else", async () => {
    await using nats = await greeter(info({ version: "2.12.1" }));
    await expect(namedRedis(`redis://${LOOPBACK}:${nats.port}`)).rejects.toThrow("not a Redis server");
  });
});

async function command(port: number, words: string[]): Promise<void> {
  const socket = connect(port, LOOPBACK);
  socket.write(`*${words.length}\r\n${words.map((word) => `$${word.length}\r\n${word}\r\n`).join("")}`);
  const [answer] = (await once(socket, "data")) as [Buffer];
  socket.destroy();
  expect(answer.toString()).toBe("+OK\r\n");
}
