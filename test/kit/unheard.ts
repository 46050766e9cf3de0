/** Rejections nobody heard: in a worker they end the process (run, R5). */
export async function unheardDuring(run: () => Promise<void>): Promise<readonly unknown[]> {
  const unheard: unknown[] = [];
  const note = (thrown: unknown): void => void unheard.push(thrown);
  process.on("unhandledRejection", note);
  try {
    await run();
    await new Promise(setImmediate); // they are told when a turn of the loop has passed
  } finally {
    process.off("unhandledRejection", note);
  }
  return unheard;
}
