/**
 * A provider for trying things out: no model, no network, the same answer to the same question always, and every answer says so. It costs nothing
 * and is never chosen in place of one that was asked for and is not configured, unless the settings say so.
 */
import { hash } from "node:crypto";
import type { Answer, Provider, Question } from "./provider.ts";

export const DEMO = "demo";
const DIMENSIONS = 64;

/** The label every answer begins with. */
export const DEMO_LABEL = "[demo answer, no model was asked]";

export const demoProvider: Provider = {
  family: DEMO,
  async ask(question, signal) {
    signal.throwIfAborted();
    return Promise.resolve(answerTo(question));
  },
  async *stream(question, signal) {
    const { text, ...end } = answerTo(question);
    for (const [word] of text.matchAll(/\S+\s*/g)) {
      signal.throwIfAborted();
      await Promise.resolve();
      yield { text: word };
    }
    yield { end };
  },
};

function answerTo(question: Question): Answer {
  const labels = { demo: "true" };
  if (question.kind === "embedding") {
    const input = question.inputs.reduce((sum, one) => sum + tokensIn(one), 0);
    return {
      text: "",
      embeddings: question.inputs.map(vectorOf),
      model: DEMO,
      finish: "stop",
      tokens: { input, output: 0 },
      labels,
    };
  }
  const said = question.turns.findLast(({ role }) => role === "user")?.content ?? "";
  const digest = hash("sha256", JSON.stringify(question.turns), "hex").slice(0, 8);
  const plain = `${DEMO_LABEL} You said ${tokensIn(said)} words (${digest}): ${said.slice(0, 200)}`;
  const text = question.json ? JSON.stringify({ demo: true, answer: plain }) : plain;
  const input = question.turns.reduce((sum, { content }) => sum + tokensIn(content), 0);
  return { text, model: DEMO, finish: "stop", tokens: { input, output: tokensIn(text) }, labels };
}

/** Words stand in for tokens. */
function tokensIn(text: string): number {
  return text.match(/\S+/g)?.length ?? 0;
}

/** A unit vector made of the text's digest: the same text, the same place. */
function vectorOf(text: string): number[] {
  const bytes = hash("sha512", text, "buffer");
  const raw = Array.from({ length: DIMENSIONS }, (_, at) => (bytes[at] ?? 0) - 127.5);
  const length = Math.hypot(...raw);
  return raw.map((value) => value / length);
}
