/** How nodes call other workers over the bus. */
import { setTimeout as pause } from "node:timers/promises";
import { parseJson, type Caller } from "../../bus/call.ts";
import { openStream } from "../../bus/stream.ts";
import { BeamlineError } from "../../contracts/errors.ts";
import { objectOr } from "../../contracts/openwop/json.ts";
import type { Outside } from "./nodes/outside.ts";

const AGAIN_MS = 250;

export function asking(caller: Caller): Pick<Outside, "request" | "stream"> {
  const { bus } = caller;
  return {
    async request(subject, body, headers, timeoutMs, signal, { idempotent = false } = {}) {
      const deadline = performance.now() + timeoutMs;
      for (let lost = false; ;) {
        try {
          const left = Math.max(1, deadline - performance.now());
          return objectOr(await caller.request(subject, body, { headers, timeoutMs: left, signal }));
        } catch (thrown) {
          // Once it was away, whoever is asked may take a moment longer to be back.
          lost ||= !bus.connected;
          const { code } = BeamlineError.from(thrown);
          if (!idempotent || !lost || code !== "unavailable" || performance.now() + AGAIN_MS >= deadline) throw thrown;
        }
        await pause(AGAIN_MS);
        signal.throwIfAborted();
      }
    },
    async *stream(subject, body, headers, timeoutMs, signal) {
      for await (const text of openStream(caller, subject, JSON.stringify(body), { headers, timeoutMs, signal }))
        yield objectOr(parseJson(text));
    },
  };
}
