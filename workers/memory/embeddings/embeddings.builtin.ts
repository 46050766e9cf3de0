/** Embeddings without a network: the Universal Sentence Encoder that comes with its package, in a thread of its own. */
import type { Embedder } from "../ports.ts";
import { Thread } from "../index/thread.ts";

/** Characters of a text that are read; the cost grows with them, the meaning rarely changes after the first page. */
const READ_CHARS = 2_000;

/** The built-in model: 512 dimensions, English, about 8 ms a text on one core. */
export function openBuiltin(): Embedder {
  const thread = new Thread(new URL("./embeddings.builtin.thread.ts", import.meta.url), "the built-in embedding model");
  return {
    model: "energetic-ai/embeddings-en@0.2",
    dimensions: 512,
    async embed(texts, signal) {
      const read = texts.map((text) => text.slice(0, READ_CHARS).toWellFormed());
      return (await thread.call("embed", read, signal)) as Float32Array[];
    },
    close: () => thread.close(),
  };
}
