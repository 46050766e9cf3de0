/** Memories for measuring with: sentences of a few dozen words in common, so that a search has candidates to weigh. */
import { createSeededRandom } from "../../runtime/ids.ts";

const words = (
  "service database worker queue timeout restart deploy certificate disk memory latency cache index schema token user region backup alert model " +
  "prompt budget agent task goal tool plan retry failure network port process log metric node cluster stream event message payload policy tenant"
).split(" ");

export interface Memory {
  readonly title: string;
  readonly content: string;
  readonly source: string;
}

export function memories(count: number): Memory[] {
  const random = createSeededRandom(11);
  const some = (n: number): string =>
    Array.from({ length: n }, () => words[Math.floor(random.float() * words.length)] ?? "").join(" ");
  return Array.from({ length: count }, (_, n) => ({
    title: `memory ${n} ${some(3)}`,
    content: some(24),
    source: "bench",
  }));
}

/** What is asked. */
export const questions: readonly string[] = [
  "database worker timeout",
  "disk failure alert",
  "token budget model",
  "queue retry payload",
  "restart certificate node",
];
