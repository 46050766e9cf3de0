/** Which index and which embedding model a deployment has (design, what a user touches). */
import { join } from "node:path";
import type { Clock } from "../../../runtime/clock.ts";
import type { Shelf } from "../archive.ts";
import { openBuiltin } from "../embeddings/embeddings.builtin.ts";
import { openOpenAi } from "../embeddings/embeddings.openai.ts";
import { openEmbedded } from "./index.embedded.ts";
import { openQdrant } from "./index.qdrant.ts";
import type { Embedder, Index } from "../ports.ts";
import type { MemoryConfig } from "../settings.ts";

export interface ShelfOptions {
  readonly config: MemoryConfig;
  readonly clock: Clock;
  /** Where the embedded index is kept. */
  readonly directory: string;
}

/** Opens both. Throws `unavailable` when either cannot be reached now, `failed_precondition` when they cannot work together. */
export async function openShelf({ config, clock, directory }: ShelfOptions): Promise<Shelf> {
  const embedder = await openEmbedder(config, clock);
  try {
    return { embedder, index: await openIndex(config, embedder, directory) };
  } catch (thrown) {
    await embedder.close();
    throw thrown;
  }
}

async function openEmbedder(config: ShelfOptions["config"], clock: Clock): Promise<Embedder> {
  const {
    EMBEDDINGS_URL: url,
    EMBEDDINGS_API_KEY: key,
    EMBEDDINGS_MODEL: model,
    BEAMLINE_EMBEDDINGS_TIMEOUT_MS: timeoutMs,
  } = config;
  return url === undefined || model === undefined ? openBuiltin() : openOpenAi({ url, key, model, timeoutMs, clock });
}

function openIndex(config: ShelfOptions["config"], { model, dimensions }: Embedder, directory: string): Promise<Index> {
  const { QDRANT_URL: url, QDRANT_API_KEY: key, BEAMLINE_QDRANT_COLLECTION: collection } = config;
  return url === undefined
    ? openEmbedded({ file: join(directory, "index.sqlite"), model, dimensions })
    : openQdrant({ url, key, collection, model, dimensions });
}
