/** The log of calls when it holds what is none, on a real server. */
import { expect } from "vitest";
import { publish } from "../../bus/publish.ts";
import { ensureStreams } from "../../bus/streams.ts";
import { streams } from "../../contracts/streams.ts";
import { startTestNats } from "../../test/kit/servers.ts";
import { verifies } from "../../test/kit/verifies.ts";
import { Spending, type Call } from "./spending.ts";

verifies(
  "log-is-truth",
  "a message that is no call keeps no worker from starting, and no call from being counted",
  async () => {
    await using nats = await startTestNats({ syncInterval: "1m" });
    const bus = await nats.connect("worker");
    await ensureStreams(bus, [streams.inference]);
    const at_ms = Date.now();
    const call: Call = {
      provider: "claude",
      model: "m",
      input_tokens: 1,
      output_tokens: 2,
      cost_micros: 30,
      at_ms,
      requesting_agent: "",
      task_id: "",
    };
    const rubbish = [
      "",
      "null",
      "[]",
      "{",
      { ...call, at_ms: 1e300 },
      { ...call, cost_micros: "30" },
      { ...call, provider: 7 },
    ];
    for (const one of [...rubbish, call])
      await publish(bus, "log.inference.calls.acme", typeof one === "string" ? one : JSON.stringify(one));
    const spending = new Spending(bus);
    await spending.start(at_ms);
    expect(spending.spent("acme", "claude", at_ms)).toBe(30);
    await spending.record("acme", call);
    expect(spending.spent("acme", "claude", at_ms)).toBe(60);
    expect(await spending.calls("acme", at_ms, new AbortController().signal)).toEqual([call, call]);
    await spending.stop();
  },
);
