/** Forks (OpenWOP, fork and replay): a new run that begins with a part of another's log. The source is never touched. */
import { BeamlineError } from "../../../contracts/errors.ts";
import { objectOr, textOr, type Json } from "../../../contracts/openwop/json.ts";
import { foldEntry } from "../../../contracts/openwop/fold.ts";
import { effectRuns, type LogEntry, type RunEvent, type RunRecord } from "../../../contracts/openwop/log.ts";
import type { RunState } from "../../../contracts/openwop/state.ts";
import { statusOf } from "../../../contracts/openwop/snapshot.ts";
import { bodyOf, bounded, invalid, object, oneOf, text, texts, wholeNumber } from "../body.ts";
import { bytesOf } from "../answersize.ts";
import { permit, type Answer, type Asker } from "../caller.ts";
import { checkConfigurable } from "../configurable.ts";
import type { RunsPorts } from "../ports.ts";
import { cutAt } from "../engine/replay.ts";
import { begin, created } from "./start.ts";

/** Largest copied history, bytes: it is one append. */
const MAX_PREFIX = 4 * 1024 * 1024;

/** Answers 201 with `runId, sourceRunId, fromSeq, mode, status, eventsUrl`. Events before `fromSeq` are history, the rest happens again. */
export async function forkRun(ports: RunsPorts, asker: Asker, sourceRunId: string, given: unknown): Promise<Answer> {
  permit(asker, "runs:create", "runs:read");
  return ports.idempotency.once(
    asker,
    "runs.fork",
    { runId: sourceRunId, body: given ?? null },
    async ({ id: runId }) => {
      const body = bodyOf(given, { mode: oneOf("replay", "branch"), fromSeq: wholeNumber, runOptionsOverlay: object }, [
        "mode",
      ]);
      const mode = body["mode"] === "replay" ? "replay" : "branch";
      const overlay = objectOr(body["runOptionsOverlay"]);
      if (mode === "branch" && body["fromSeq"] === undefined) throw invalid("fromSeq", "is required for a branch");
      if (mode === "replay" && Object.keys(overlay).length > 0)
        throw invalid("runOptionsOverlay", "must be empty for a replay");
      const fromSeq = typeof body["fromSeq"] === "number" ? body["fromSeq"] : 0;
      const { state } = await ports.log.get(asker.tenant, sourceRunId);
      // What is in memory may be older than what is kept.
      const [started] = await ports.log.history(asker.tenant, sourceRunId);
      if (fromSeq > state.sequence) {
        throw new BeamlineError(
          "replay_source_missing",
          `fromSeq ${fromSeq} is beyond the log, which ends at ${state.sequence}`,
          {
            field: "fromSeq",
            details: { lastSequence: state.sequence },
          },
        );
      }
      const record = await forkedRecord(ports, asker, state, overlay, { runId, sourceRunId, fromSeq, mode });
      const made =
        fromSeq === 0
          ? // Its first event is to say what its source's says.
            begin(ports, record, textOr(objectOr(started?.payload)["transport"], "")).then(() => "running")
          : copyPrefix(ports, asker.tenant, sourceRunId, record, fromSeq);
      const status = await made.catch(async (thrown: unknown) => {
        // The same call was here before and died after this: the fork is there.
        if (!(thrown instanceof BeamlineError) || thrown.code !== "aborted") throw thrown;
        return statusOf((await ports.log.get(asker.tenant, runId)).state);
      });
      await ports.audit.record(asker, "run.forked", runId, { sourceRunId, fromSeq, mode });
      return { status: 201, body: { ...created(asker, runId, status), sourceRunId, fromSeq, mode } };
    },
  );
}

interface Fork {
  readonly runId: string;
  readonly sourceRunId: string;
  readonly fromSeq: number;
  readonly mode: "replay" | "branch";
}

/** The source's record with what the overlay changes. A fork belongs to whom its source belongs to, and is nobody's child. */
async function forkedRecord(
  ports: RunsPorts,
  asker: Asker,
  { record: source, span }: RunState,
  overlay: Json,
  { runId, sourceRunId, fromSeq, mode }: Fork,
): Promise<RunRecord> {
  const changed = bodyOf(overlay, {
    configurable: object,
    tags: texts(100, text(256, 1)),
    metadata: bounded(50 * 1024, 16),
  });
  const configurable = { ...source.configurable, ...objectOr(changed["configurable"]) };
  const { definition } = await ports.definitions.graph(source.definition);
  if (changed["configurable"] !== undefined) checkConfigurable(ports, asker, definition, configurable);
  // A replay made no effects of its own, a branch made those after its cut.
  const before = source.fork === undefined ? [] : effectRuns(source.fork);
  const [effectsOf = sourceRunId, ...effectsBefore] =
    source.fork?.mode === "replay" ? before : [sourceRunId, ...before];
  const { parent: _parent, sourceSpan: _sourceSpan, ...kept } = source;
  return {
    ...kept,
    runId,
    configurable,
    ...(changed["tags"] !== undefined && { tags: changed["tags"] as readonly string[] }),
    ...(changed["metadata"] !== undefined && { metadata: objectOr(changed["metadata"]) }),
    traceparent: asker.traceparent,
    ...(span !== undefined && { sourceSpan: span }),
    fork: {
      sourceRunId,
      fromSeq,
      mode,
      effectsOf,
      ...(effectsBefore.length > 0 && { effectsBefore }),
      at: new Date(ports.clock.now()).toISOString(),
    },
  };
}

/** Starts the log with the source's events before its cut, under their own ids. Gives the status they lead to. */
async function copyPrefix(
  ports: RunsPorts,
  tenant: string,
  sourceRunId: string,
  record: RunRecord,
  fromSeq: number,
): Promise<string> {
  const events: RunEvent[] = [];
  const real: Record<string, unknown> = {};
  const entries = await ports.log.read(tenant, sourceRunId, 1);
  const cut = cutAt(
    entries.flatMap(({ entry }) => entry.events),
    fromSeq,
    record.fork?.mode ?? "branch",
  );
  for (const { entry } of entries) {
    for (const event of entry.events) {
      if (event.sequence >= cut) continue;
      events.push({ ...event, runId: record.runId });
      const hidden = entry.real?.[event.sequence];
      if (hidden !== undefined) real[event.sequence] = hidden;
    }
  }
  const entry: LogEntry = { run: record, events, ...(Object.keys(real).length > 0 && { real }) };
  const bytes = bytesOf(entry);
  if (bytes > MAX_PREFIX) {
    const details = { reason: "history_too_large", bytes, maxBytes: MAX_PREFIX };
    const message = `the history before fromSeq has ${bytes} bytes, and ${MAX_PREFIX} at most are copied`;
    throw new BeamlineError("message_too_large", message, { field: "fromSeq", details });
  }
  const streamSeq = await ports.log.append(record, 0, entry, "wake");
  const state = foldEntry(undefined, entry);
  ports.log.keep(tenant, record.runId, { state, streamSeq });
  ports.metrics.created(state);
  return statusOf(state);
}
