import { spawn } from "node:child_process";
import { EventEmitter, once } from "node:events";
import { createInterface } from "node:readline";
import { expect, test } from "vitest";
import { ManualClock } from "./clock.ts";
import { loadConfig } from "./config.ts";
import { silentLogger } from "./log.ts";
import { run } from "./run.ts";
import type { Host } from "./run.ts";
import { int } from "./setting.ts";

/** A process that is none: signals are sent by hand, exits and complaints are noted. */
function fakeHost() {
  const signals = new EventEmitter();
  const clock = new ManualClock(0);
  const exits: number[] = [];
  const complaints: string[] = [];
  const host: Host = {
    on: (event, listener) => signals.on(event, listener),
    off: (event, listener) => signals.off(event, listener),
    exit: (code) => exits.push(code),
    complain: (text) => complaints.push(text),
    clock,
  };
  return {
    host,
    clock,
    exits,
    complaints,
    send: (event: string, cause: unknown = event) => signals.emit(event, cause),
    signals,
  };
}

test("R1: a signal drains, and the code says whether everything closed", async () => {
  for (const [close, code] of [
    [() => {}, 0],
    [() => Promise.reject(new Error("no")), 1],
  ] as const) {
    const { host, exits, send, signals } = fakeHost();
    const running = run(
      "test",
      async (scope) => {
        scope.configure({ log: silentLogger });
        scope.use("bus", {}, close);
        await Promise.resolve();
      },
      host,
    );
    await Promise.resolve();
    send("SIGTERM");
    await running;
    expect(exits).toEqual([code]);
    expect(signals.eventNames()).toEqual([]);
  }
});

test("R2, R3: a second signal exits at once, its echo does not", async () => {
  const { host, exits, send, clock } = fakeHost();
  const running = run(
    "test",
    async (scope) => {
      scope.configure({ log: silentLogger, drainMs: 1_000 });
      scope.use("hanging", {}, () => new Promise<never>(() => {}));
      await Promise.resolve();
    },
    host,
  );
  await Promise.resolve();
  send("SIGINT");
  send("SIGINT");
  await clock.advance(200);
  send("SIGINT");
  expect(exits).toEqual([]);
  await clock.advance(100);
  send("SIGINT");
  expect(exits).toEqual([130]);
  send("SIGTERM");
  expect(exits).toEqual([130, 143]);
  await clock.advance(1_000);
  await running;
  expect(exits).toEqual([130, 143, 1]);
});

test("R4: a wrong configuration is told in full and exits with 78", async () => {
  const { host, exits, complaints } = fakeHost();
  const table = { A: int(1, "First."), B: int(1, "Second.") };
  await run(
    "test",
    (scope) => {
      scope.configure({ log: silentLogger });
      loadConfig(table, { A: "x", B: "y" });
      return Promise.resolve();
    },
    host,
  );
  expect(exits).toEqual([78]);
  expect(complaints[0]).toContain("2 mistakes");
});

test("R4: what cannot start closes what it had opened and exits with 1", async () => {
  const { host, exits } = fakeHost();
  const closed: string[] = [];
  await run(
    "test",
    async (scope) => {
      scope.configure({ log: silentLogger });
      scope.use("bus", {}, () => closed.push("bus"));
      await scope.open("index", () => Promise.reject(new Error("refused")));
    },
    host,
  );
  expect(closed).toEqual(["bus"]);
  expect(exits).toEqual([1]);
});

test("a signal while starting stops the start, and that is no failure", async () => {
  const { host, exits, send } = fakeHost();
  const running = run(
    "test",
    async (scope) => {
      scope.configure({ log: silentLogger });
      await scope.open(
        "bus",
        (signal) =>
          new Promise<never>((_, reject) => {
            signal.addEventListener("abort", () => reject(new Error("given up")));
          }),
      );
    },
    host,
  );
  send("SIGTERM");
  await running;
  expect(exits).toEqual([0]);
});

test("R5: an error nobody caught drains and exits with 1", async () => {
  const { host, exits, send } = fakeHost();
  const closed: string[] = [];
  const running = run(
    "test",
    async (scope) => {
      scope.configure({ log: silentLogger });
      scope.use("bus", {}, () => closed.push("bus"));
      await Promise.resolve();
    },
    host,
  );
  await Promise.resolve();
  send("unhandledRejection", new Error("lost"));
  await running;
  expect([closed, exits]).toEqual([["bus"], [1]]);
});

/** A real process running the body, its log lines as they come, and what it exited with. */
function startProcess(body: string, options = "") {
  const url = JSON.stringify(new URL("run.ts", import.meta.url).href);
  const script = `import { run, processHost } from ${url}; await run("child", async (scope) => { ${body} }, { ...processHost, ${options} });`;
  const child = spawn(process.execPath, ["--input-type=module", "--eval", script], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const messages: string[] = [];
  const lines = createInterface(child.stdout);
  lines.on("line", (line) => messages.push(String(Object(JSON.parse(line)).message)));
  const exited = once(child, "close").then(([code]: unknown[]) => code);
  const said = async (message: string) => {
    while (!messages.includes(message)) await once(lines, "line");
  };
  return { kill: (signal: NodeJS.Signals) => child.kill(signal), said, exited, messages };
}

test("R1, real signals: the process stays up until SIGTERM, drains and exits with 0", async () => {
  const child = startProcess(`scope.use("bus", {}, () => scope.log.info("bus closed"));`);
  await child.said("ready");
  child.kill("SIGTERM");
  expect(await child.exited).toBe(0);
  expect(child.messages).toEqual(["ready", "draining", "bus closed", "stopped"]);
});

test.each([
  ["SIGINT", 130],
  ["SIGTERM", 143],
] as const)("R2, real signals: a second %s exits with %i", async (signal, code) => {
  // A clock that leaps, so that no signal is taken for an echo.
  const child = startProcess(
    `scope.use("hanging", {}, () => new Promise(() => {}));`,
    `clock: { now: Date.now, micros: () => Date.now() * 1000, sleep: () => new Promise(() => {}), monotonic: (() => { let ms = 0; return () => (ms += 1000); })() }`,
  );
  await child.said("ready");
  child.kill(signal);
  await child.said("draining");
  child.kill(signal);
  expect(await child.exited).toBe(code);
});

test("R5, real errors: a rejection nobody caught ends the process in order", async () => {
  const child = startProcess(
    `scope.use("bus", {}, () => scope.log.info("bus closed")); setImmediate(() => Promise.reject(new Error("lost")));`,
  );
  expect(await child.exited).toBe(1);
  expect(child.messages).toEqual(["ready", "draining after an error nobody caught", "bus closed", "stopped"]);
});
