/** What the memory worker can be told (beside the settings every worker has). */
import { durationMs, int, optional, secret, text, url } from "../../runtime/setting.ts";
import type { workerSettings } from "../../runtime/settings.ts";
import type { Config } from "../../runtime/config.ts";

export const memorySettings = {
  BEAMLINE_QDRANT_COLLECTION: text(
    "beamline_memory",
    "Start of the name of the collection memories are searched in; the embedding model is the rest of it.",
  ),
  EMBEDDINGS_URL: url(
    optional,
    "OpenAI-compatible endpoint that embeds texts; the built-in offline model without one.",
    {
      schemes: ["http", "https"],
      needs: ["EMBEDDINGS_MODEL"],
    },
  ),
  EMBEDDINGS_API_KEY: secret(optional, "Key of that endpoint.", { needs: ["EMBEDDINGS_URL"] }),
  EMBEDDINGS_MODEL: text(optional, "Model asked of that endpoint. Another one embeds everything again from the log.", {
    needs: ["EMBEDDINGS_URL"],
  }),
  BEAMLINE_EMBEDDINGS_TIMEOUT_MS: durationMs(
    10_000,
    "How long one request to that endpoint may take; it is tried three times.",
    {
      min: 10,
    },
  ),
  BEAMLINE_MEMORY_EVENTS: int(10_000, "Recent events kept per tenant; critical ones stay beyond that.", {
    min: 1,
    max: 1_000_000,
  }),
  BEAMLINE_MEMORY_EVENT_AGE_MS: durationMs(
    7 * 86_400_000,
    "Age after which ordinary events are forgotten, at most 7 days; 0 for when their log is.",
    { min: 0 },
  ),
  BEAMLINE_MEMORY_CRITICAL_AGE_MS: durationMs(
    30 * 86_400_000,
    "Age after which critical events are no longer shown; the log keeps them. 0 for never.",
    { min: 0 },
  ),
  BEAMLINE_MEMORY_GOAL_AGE_MS: durationMs(
    90 * 86_400_000,
    "Age after which ended goals and their tasks become long-term memory; 0 for never.",
    { min: 0 },
  ),
  BEAMLINE_MEMORY_DECISION_AGE_MS: durationMs(
    30 * 86_400_000,
    "Age after which decisions are in long-term memory alone; 0 for never.",
    { min: 0 },
  ),
  BEAMLINE_MEMORY_TOOL_CALL_AGE_MS: durationMs(
    30 * 86_400_000,
    "Age after which tool calls are in the log alone; 0 for never.",
    { min: 0 },
  ),
  BEAMLINE_MEMORY_PATTERNS: int(1_000, "Patterns kept per tenant, the best ones.", { min: 1, max: 1_000_000 }),
  BEAMLINE_MEMORY_SWEEP_MS: durationMs(600_000, "How often retention and promotion run.", { min: 100 }),
  BEAMLINE_MEMORY_INDEX_WAIT_MS: durationMs(5_000, "How long a write waits to be indexed before that is done later.", {
    min: 10,
    max: 25_000,
  }),
  BEAMLINE_MEMORY_BEHIND_MS: durationMs(
    50,
    "How long acknowledged ordinary events and metrics may wait to be logged.",
    { min: 1, max: 10_000 },
  ),
};

/** What the memory worker is given: its own settings and those every worker has. */
export type MemoryConfig = Config<typeof memorySettings> & Config<typeof workerSettings>;
