import { afterAll, expect, test } from "vitest";
import type { Msg } from "@nats-io/transport-node";
import type { BeamlineError } from "../contracts/errors.ts";
import { startTestNats } from "../test/kit/servers.ts";
import { textOf } from "./headers.ts";
import { Inbox, Waiter } from "./inbox.ts";

const nats = await startTestNats();
const bus = await nats.connect();
const inbox = new Inbox(bus);
afterAll(async () => {
  inbox.stop();
  await nats.stop();
});

class Told extends Waiter {
  readonly told: string[] = [];

  arrived(message: Msg): void {
    this.told.push(textOf(message));
  }
  lost(error: BeamlineError): void {
    this.told.push(error.code);
  }
  expire(): void {
    inbox.forget(this);
    this.told.push("expired");
  }
  deny(): void {
    this.told.push("denied");
  }
}

function waiting(timeoutMs = 60_000): Told {
  const told = new Told("some.subject", timeoutMs);
  inbox.expect(told);
  return told;
}

test("a reply finds its waiter once; a late one does not find whoever has the place now", async () => {
  const first = waiting();
  const other = waiting();
  bus.send(first.reply, "one");
  bus.send(first.reply, "again");
  await bus.flush();
  const next = waiting();
  expect(next.place).toBe(first.place);
  bus.send(first.reply, "late");
  bus.send(next.reply, "two");
  await bus.flush();
  expect([first.told, next.told, other.told]).toEqual([["one"], ["two"], []]);
  inbox.forget(other);
  bus.send(other.reply, "nobody listens");
  await bus.flush();
  expect(other.told).toEqual([]);
});

test("subjects that are nobody's are ignored", async () => {
  const one = waiting();
  const prefix = one.reply.slice(0, one.reply.lastIndexOf(".") + 1);
  for (const token of ["x", "l99", `${one.place}`, `${one.place}x`, `${one.place}-`, "999999-0"])
    bus.send(prefix + token, "stray");
  bus.send(one.reply, "mine");
  await bus.flush();
  expect(one.told).toEqual(["mine"]);
});

test("who waits too long is told, and the others wait on", async () => {
  const patient = waiting();
  const short = waiting(30);
  await expect.poll(() => short.told, { timeout: 30_000 }).toEqual(["expired"]);
  expect(patient.told).toEqual([]);
  inbox.forget(patient);
});

test("a listener hears everything until it is closed", async () => {
  const heard: string[] = [];
  const subject = inbox.open((message) => void heard.push(message === undefined ? "lost" : textOf(message)));
  bus.send(subject, "one");
  bus.send(subject, "two");
  await bus.flush();
  inbox.close(subject);
  bus.send(subject, "three");
  await bus.flush();
  expect(heard).toEqual(["one", "two"]);
});

test("when the connection is lost, waiters and listeners are told, and who listens for ever hears again afterwards", async () => {
  const waiter = waiting();
  const heard: string[] = [];
  const lasting: string[] = [];
  inbox.open((message, error) => void heard.push(message === undefined ? (error?.code ?? "") : textOf(message)));
  const forEver = inbox.openForEver((message) => void lasting.push(textOf(message)));
  await bus.nc.reconnect();
  await expect.poll(() => [waiter.told, heard], { timeout: 30_000 }).toEqual([["unavailable"], ["unavailable"]]);
  await expect.poll(() => bus.connected, { timeout: 30_000 }).toBe(true);
  bus.send(forEver, "still here");
  await bus.flush();
  expect(lasting).toEqual(["still here"]);
});
