import { describe, expect, test } from "vitest";
import { Circuit } from "./circuit.ts";
import type { Breaker } from "../policies/compile.ts";
import { HealthBook, type Outcome } from "./health.ts";
import type { CircuitState } from "../ports.ts";
import { policy, seventyThirty } from "../testkit.ts";
import { SlidingWindow } from "./window.ts";

const breaker = (more: object = {}): Breaker => {
  const made = policy({ ...seventyThirty, circuit_breaker: { enabled: true, ...more } }).breaker;
  if (made === undefined) throw new Error("no breaker");
  return made;
};

describe("C1: opening", () => {
  test("one failure does not, so many in a row do", () => {
    const circuit = new Circuit(breaker({ error_rate_threshold: 1 }));
    for (let i = 0; i < 4; i++) circuit.failed(i, 10);
    expect(circuit.state(4)).toBe("closed");
    circuit.failed(4, 10);
    expect(circuit.state(5)).toBe("open");
    expect(circuit.openedAt).toBe(4);
  });

  test("a success starts the count anew", () => {
    const circuit = new Circuit(breaker({ error_rate_threshold: 1 }));
    for (let i = 0; i < 40; i++) {
      if (i % 5 === 4) circuit.succeeded(i, 10);
      else circuit.failed(i, 10);
    }
    expect(circuit.state(40)).toBe("closed");
  });

  test("the share of failures, once there are enough calls to speak of one", () => {
    const circuit = new Circuit(breaker());
    circuit.failed(0, 10);
    circuit.succeeded(1, 10);
    circuit.failed(2, 10);
    circuit.succeeded(3, 10);
    expect(circuit.state(4)).toBe("closed");
    expect(circuit.errorRate(4)).toBe(0.5);
    circuit.failed(5, 10);
    expect(circuit.state(6)).toBe("open");
  });

  test("failures outside the window do not count", () => {
    const circuit = new Circuit(breaker({ error_rate_window_seconds: 10 }));
    circuit.failed(0, 10);
    circuit.failed(0, 10);
    for (let i = 0; i < 3; i++) circuit.succeeded(20_000, 10);
    circuit.failed(20_000, 10);
    circuit.succeeded(20_000, 10);
    circuit.failed(20_000, 10);
    expect(circuit.state(20_001)).toBe("closed");
  });

  test("the average latency", () => {
    const circuit = new Circuit(breaker({ latency_threshold_ms: 1_000 }));
    for (let i = 0; i < 4; i++) circuit.succeeded(i, 2_000);
    expect(circuit.state(4)).toBe("closed");
    circuit.succeeded(5, 2_000);
    expect(circuit.state(6)).toBe("open");
  });

  test("a threshold of one failure is taken at its word", () => {
    const circuit = new Circuit(breaker({ failure_threshold: 1 }));
    circuit.failed(0, 10);
    expect(circuit.state(1)).toBe("open");
  });
});

/** A circuit that opened at 0. */
function opened(more: object = {}): Circuit {
  const circuit = new Circuit(breaker({ failure_threshold: 1, ...more }));
  circuit.failed(0, 10);
  return circuit;
}

describe("C2 and C3: half-open", () => {
  test("nothing gets through until the time is up", () => {
    const circuit = opened();
    expect(circuit.admit(59_999, false)).toBe(false);
    expect(circuit.state(59_999)).toBe("open");
    expect(circuit.state(60_000)).toBe("half_open");
  });

  test("so many trials, dry looks not counted", () => {
    const circuit = opened();
    for (let i = 0; i < 10; i++) expect(circuit.admit(60_000, true)).toBe(true);
    for (let i = 0; i < 3; i++) expect(circuit.admit(60_000, false)).toBe(true);
    expect(circuit.admit(60_000, false)).toBe(false);
    expect(circuit.admit(60_000, true)).toBe(false);
  });

  test("enough successes close it and forget what was", () => {
    const circuit = opened();
    circuit.admit(60_000, false);
    circuit.succeeded(60_001, 10);
    expect(circuit.state(60_001)).toBe("half_open");
    circuit.admit(60_002, false);
    circuit.succeeded(60_003, 10);
    expect(circuit.state(60_003)).toBe("closed");
    expect(circuit.errorRate(60_003)).toBe(0);
    expect(circuit.openedAt).toBe(0);
  });

  test("one failure opens it again, for the whole time", () => {
    const circuit = opened();
    circuit.admit(60_000, false);
    circuit.failed(60_001, 10);
    expect(circuit.state(120_000)).toBe("open");
    expect(circuit.state(120_001)).toBe("half_open");
  });

  test("trials nobody hears of are given out anew", () => {
    const circuit = opened();
    for (let i = 0; i < 3; i++) circuit.admit(60_000, false);
    expect(circuit.admit(119_999, false)).toBe(false);
    expect(circuit.admit(120_000, false)).toBe(true);
  });
});

test("C4: news of earlier calls does not change an open circuit", () => {
  const circuit = opened();
  for (let i = 0; i < 10; i++) circuit.succeeded(1_000, 10);
  circuit.failed(50_000, 10);
  expect(circuit.state(50_000)).toBe("open");
  expect(circuit.state(60_000)).toBe("half_open");
});

test("settings may change, and a longer window serves all who look", () => {
  const circuit = new Circuit(breaker({ failure_threshold: 5, error_rate_threshold: 1 }));
  circuit.failed(0, 10);
  circuit.failed(0, 10);
  circuit.configure(breaker({ failure_threshold: 3, error_rate_threshold: 1, error_rate_window_seconds: 10 }));
  expect(circuit.errorRate(1)).toBe(1);
  circuit.failed(1, 10);
  expect(circuit.state(2)).toBe("open");
});

test("a window moves on by tenths", () => {
  const window = new SlidingWindow(1_000);
  for (let now = 0; now < 1_000; now += 100) window.add(now, now % 200 === 0, 5);
  expect(window.sum(999)).toEqual({ calls: 10, failures: 5, latencyMs: 50 });
  expect(window.sum(1_000)).toEqual({ calls: 9, failures: 4, latencyMs: 45 });
  expect(window.sum(5_000).calls).toBe(0);
});

describe("the book of health", () => {
  const outcome = (more: Partial<Outcome> = {}): Outcome => ({
    tenant: "acme",
    provider: "openai",
    status: "success",
    errorCode: "",
    errorMessage: "",
    latencyMs: 100,
    cost: 0.01,
    ...more,
  });
  const book = (): { book: HealthBook; changes: string[]; clock: { now: number } } => {
    const clock = { now: 0 };
    const changes: string[] = [];
    const onCircuit = (tenant: string, provider: string, from: CircuitState, to: CircuitState): void =>
      void changes.push(`${tenant} ${provider} ${from} ${to}`);
    return { book: new HealthBook({ now: () => clock.now, onCircuit }), changes, clock };
  };

  test("H1: the first result is the estimate, each further one moves it a fifth of the way", () => {
    const { book: one } = book();
    expect(one.estimate("acme", "openai")).toBeUndefined();
    one.observe(outcome());
    expect(one.estimate("acme", "openai")).toEqual({ latencyMs: 100, cost: 0.01 });
    one.observe(outcome({ latencyMs: 200, cost: 0.02 }));
    expect(one.estimate("acme", "openai")?.latencyMs).toBeCloseTo(120);
    expect(one.estimate("acme", "openai")?.cost).toBeCloseTo(0.012);
  });

  test("H2: results that agree change nothing", () => {
    const { book: one } = book();
    one.observe(outcome());
    const { revision } = one;
    for (let i = 0; i < 100; i++) one.observe(outcome({ latencyMs: 98 + (i % 5) }));
    expect(one.revision).toBe(revision);
    one.observe(outcome({ latencyMs: 200 }));
    expect(one.revision).toBeGreaterThan(revision);
  });

  test("one tenant's results are not another's", () => {
    const { book: one } = book();
    one.observe(outcome());
    expect(one.estimate("other", "openai")).toBeUndefined();
  });

  test.each<[string, Partial<Outcome>, boolean]>([
    ["a timeout", { status: "timeout" }, true],
    ["TIMEOUT", { status: "error", errorCode: "TIMEOUT" }, true],
    ["CONNECTION_ERROR", { status: "error", errorCode: "CONNECTION_ERROR" }, true],
    ["PROVIDER_UNAVAILABLE", { status: "error", errorCode: "PROVIDER_UNAVAILABLE" }, true],
    ["5XX", { status: "error", errorCode: "5XX" }, true],
    ["HTTP_5XX", { status: "error", errorCode: "HTTP_5XX" }, true],
    ["HTTP_503", { status: "error", errorCode: "HTTP_503" }, true],
    ["SERVER_ERROR", { status: "error", errorCode: "SERVER_ERROR" }, true],
    ["NETWORK_ERROR", { status: "error", errorCode: "NETWORK_ERROR" }, true],
    ["CONNECTION_TIMEOUT", { status: "error", errorCode: "CONNECTION_TIMEOUT" }, true],
    ["SYSTEM_OVERLOAD", { status: "error", errorCode: "SYSTEM_OVERLOAD" }, true],
    [
      "HTTP_ERROR with a 502 in its text",
      { status: "error", errorCode: "HTTP_ERROR", errorMessage: "status 502" },
      true,
    ],
    [
      "HTTP_ERROR with a 404 in its text",
      { status: "error", errorCode: "HTTP_ERROR", errorMessage: "status 404" },
      false,
    ],
    ["no code, connection refused", { status: "error", errorMessage: "connection refused" }, true],
    ["INVALID_INPUT", { status: "error", errorCode: "INVALID_INPUT", errorMessage: "timeout must be a number" }, false],
    ["PERMISSION_DENIED", { status: "error", errorCode: "PERMISSION_DENIED" }, false],
    ["a number that only looks like one", { status: "error", errorCode: "E15003" }, false],
    ["cancelled", { status: "cancelled", errorCode: "CANCELLED_BY_TIMEOUT" }, false],
  ])("H3: %s", (_, more, counts) => {
    const { book: one, changes } = book();
    const eager = breaker({ failure_threshold: 1 });
    one.circuit("acme", "openai", eager);
    one.observe(outcome(more));
    expect(one.circuit("acme", "openai", eager)).toBe(counts ? "open" : "closed");
    expect(changes).toEqual(counts ? ["acme openai closed open"] : []);
    expect(one.errorShare("acme", "openai") > 0).toBe(counts);
    expect(one.estimate("acme", "openai")?.latencyMs).toBeUndefined();
  });

  test("a circuit opens, half-opens, closes, and each change is told once and changes the revision", () => {
    const { book: one, changes, clock } = book();
    const eager = breaker({ failure_threshold: 1 });
    expect(one.admit("acme", "openai", eager, false)).toBe(true);
    one.observe(outcome({ status: "timeout" }));
    const { revision } = one;
    expect(one.admit("acme", "openai", eager, false)).toBe(false);
    clock.now = 60_000;
    expect(one.admit("acme", "openai", eager, false)).toBe(true);
    expect(one.revision).toBeGreaterThan(revision);
    one.observe(outcome());
    one.observe(outcome());
    expect(one.circuit("acme", "openai", eager)).toBe("closed");
    expect(changes).toEqual(["acme openai closed open", "acme openai open half_open", "acme openai half_open closed"]);
  });
});
