/** Events of a tenant as they are logged: ordinary ones a moment after they happened, critical ones at once. */
import type { Bus } from "../bus/connect.ts";
import { codecOf } from "../contracts/codec.ts";
import { Event } from "../contracts/gen/aios/memory.ts";
import { readArrivals } from "../workers/memory/arrival.ts";
import { MemoryLog, type ReadOptions } from "../workers/memory/log.ts";
import { CRITICAL, RECENT, tenantToken } from "../workers/memory/record.ts";

const events = codecOf(Event);

/** Begins listening; the events come until the signal. Throws `unavailable` when the log cannot be read. */
export async function followEvents(bus: Bus, tenant: string, signal: AbortSignal): Promise<AsyncIterable<Event>> {
  const log = new MemoryLog(bus);
  const token = tenantToken(tenant);
  const [memory, recent] = await Promise.all([log.bounds("MEMORY"), log.bounds("MEMORY_RECENT")]);
  const waiting: Event[] = [];
  let wake = (): void => undefined;
  let failure: unknown;
  let reading = 2;
  const pump = async (options: Pick<ReadOptions, "stream" | "subjects" | "from">): Promise<void> => {
    try {
      for await (const entry of log.read({ ...options, follow: true, signal })) {
        waiting.push(
          ...readArrivals(entry.subject, await log.text(entry)).map(({ text }) => events.fromJson(JSON.parse(text))),
        );
        wake();
      }
    } catch (error) {
      failure ??= error;
    }
    reading--;
    wake();
  };
  void pump({ stream: "MEMORY", subjects: [`${CRITICAL}.${token}`], from: memory.last + 1 });
  void pump({ stream: "MEMORY_RECENT", subjects: [`${RECENT}.${token}`], from: recent.last + 1 });
  return (async function* () {
    for (;;) {
      const next = waiting.shift();
      if (next !== undefined) yield next;
      else if (failure !== undefined) throw failure;
      else if (reading === 0) return;
      else await new Promise<void>((resolve) => (wake = resolve));
    }
  })();
}
