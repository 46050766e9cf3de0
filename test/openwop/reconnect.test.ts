/** Clients that come back (OpenWOP, SSE framing): from every id, in every mode, while nothing happens and after the end. */
import { afterAll, beforeAll, expect, test } from "vitest";
import type { RunEvent } from "../../contracts/openwop/log.ts";
import { bearer, startHost, type Host } from "./host.ts";
import { waiting } from "./provoke.ts";

let host: Host;
beforeAll(async () => {
  host = await startHost();
}, 60_000);
afterAll(async () => host[Symbol.asyncDispose]());

interface Frame {
  readonly id: string;
  readonly events: readonly RunEvent[];
}

/** Frames of a stream as they come, until its end or until the caller has seen enough. */
async function* frames(runId: string, query: string, lastEventId?: string): AsyncGenerator<Frame> {
  const gone = new AbortController();
  const headers = { ...bearer().metadata, ...(lastEventId !== undefined && { "last-event-id": lastEventId }) };
  const response = await fetch(`${host.base}/v1/runs/${runId}/events?${query}`, { headers, signal: gone.signal });
  expect(response.status).toBe(200);
  let rest = "";
  try {
    for await (const chunk of response.body ?? []) {
      rest += Buffer.from(chunk).toString("utf8");
      const parts = rest.split("\n\n");
      rest = parts.pop() ?? "";
      for (const part of parts) {
        const id = /^id: (.*)$/m.exec(part)?.[1];
        const data = /^data: (.*)$/m.exec(part)?.[1];
        if (id !== undefined && data !== undefined) yield { id, events: [JSON.parse(data) as RunEvent].flat() };
      }
    }
  } finally {
    gone.abort();
  }
}

const statusIn = (payload: unknown): unknown => (payload as { status?: unknown } | null)?.status;
const all = async (...asked: Parameters<typeof frames>): Promise<Frame[]> => Array.fromAsync(frames(...asked));
const ids = (given: readonly Frame[]): string[] => given.flatMap(({ events }) => events.map(({ eventId }) => eventId));

test.each(["updates", "debug", "messages", "updates,messages", "messages,debug", "updates&bufferMs=30"])(
  "streamMode=%s: from any id on comes the rest, and nothing twice",
  async (mode) => {
    const mockProvider = { id: "stream-text", config: { tokens: ["a", "b", "c", "d"], delayMsPerToken: 60 } };
    const runId = await host.start("conformance-stream-text", { configurable: { mockProvider } });
    const live = await all(runId, `streamMode=${mode}`);
    expect(live.length).toBeGreaterThan(1);
    for (const { id } of live) {
      const later = await all(runId, `streamMode=${mode}`, id);
      const rest = live.flatMap(({ events }) => events).filter(({ sequence }) => sequence > Number(id));
      expect([id, ids(later)]).toEqual([id, rest.map(({ eventId }) => eventId)]);
    }
  },
);

test.each(["updates", "values"])(
  "streamMode=%s: a question is not held back by a buffer, nor is anything lost in it",
  async (mode) => {
    const runId = await host.start("conformance-approval");
    const started = performance.now();
    const seen: RunEvent[] = [];
    for await (const { events } of frames(runId, `streamMode=${mode}&bufferMs=5000`)) {
      seen.push(...events);
      if (events.some(({ type, payload }) => type === "approval.requested" || statusIn(payload) === "waiting-approval"))
        break;
    }
    expect(performance.now() - started).toBeLessThan(4_000);
    const unbuffered: RunEvent[] = [];
    for await (const { events } of frames(runId, `streamMode=${mode}`)) {
      unbuffered.push(...events);
      if (unbuffered.length === seen.length) break;
    }
    expect(seen.map(({ eventId }) => eventId)).toEqual(unbuffered.map(({ eventId }) => eventId));
  },
);

test("a stream asked for as JSON is a poll, from the id the client has", async () => {
  const runId = await host.start("conformance-multi-node");
  await host.reaches(runId, "completed");
  const events = await host.events(runId);
  const headers = { accept: "application/json", "last-event-id": "2" };
  const { body } = await host.rest("GET", `/v1/runs/${runId}/events`, undefined, headers);
  expect(body).toEqual({ events: events.slice(3), isComplete: true });
  const asked = await host.rest("GET", `/v1/runs/${runId}/events?since=3`, undefined, { accept: "application/json" });
  expect(asked.body.events).toEqual(events.slice(4));
});

test("streamMode=values: whoever comes back has the state first, although nothing happens; then what comes", async () => {
  const runId = await waiting(host, "conformance-approval", "waiting-approval");
  const last = (await host.events(runId)).at(-1)?.sequence ?? -1;
  for (const lastEventId of [String(last), String(last - 1), "0", undefined]) {
    const stream = frames(runId, "streamMode=values", lastEventId);
    const seen: Frame[] = [];
    for await (const frame of stream) {
      seen.push(frame);
      if (frame.id === String(last)) break;
    }
    expect(seen.at(-1)?.events[0]).toMatchObject({
      type: "state.snapshot",
      payload: { runId, status: "waiting-approval", currentNodeId: "gate" },
    });
  }
  const overGrpc = host.grpc.stream(
    "streamRunEvents",
    { run_id: runId, last_sequence: BigInt(last), stream_modes: ["values"] },
    bearer(),
  );
  const told: unknown[] = [];
  const resumed = (async () => {
    for await (const { type, seq, payload } of overGrpc) {
      told.push([type, Number(seq) >= last, (payload as { status?: string } | undefined)?.status]);
      if (told.length === 1)
        await host.rest("POST", `/v1/runs/${runId}/interrupts/gate`, { resumeValue: { action: "accept" } });
    }
  })();
  await resumed;
  expect(told[0]).toEqual(["state.snapshot", true, "waiting-approval"]);
  expect(told.at(-1)).toEqual(["state.snapshot", true, "completed"]);
  const end = (await host.events(runId)).at(-1)?.sequence;
  const after = await all(runId, "streamMode=values", String(end));
  expect(after.map(({ events }) => statusIn(events[0]?.payload))).toEqual(["completed"]);
});
