/** A progress bar on a terminal; a line now and then where there is none. */
const WIDTH = 30;
const LINE_EVERY_MS = 2_000;

export interface Bar {
  show(label: string, done: number, total: number): void;
  /** Leaves the last state standing and ends its line. */
  end(): void;
}

/** @param visible false shows nothing at all */
export function bar(stream: NodeJS.WriteStream, visible: boolean): Bar {
  let shownAt = -LINE_EVERY_MS;
  let label = "";
  let open = false;
  return {
    show(of, done, total) {
      if (!visible) return;
      const share = total > 0 ? Math.min(1, done / total) : 0;
      const text = `${of.padEnd(6)} ${"█".repeat(Math.round(share * WIDTH)).padEnd(WIDTH, "░")} ${Math.floor(share * 100)} %  ${done} of ${total}`;
      if (stream.isTTY) {
        stream.write(`${of !== label && open ? "\n" : ""}\r\u001b[K${text}`);
        open = true;
      } else if (of !== label || done >= total || performance.now() - shownAt >= LINE_EVERY_MS) {
        shownAt = performance.now();
        stream.write(`${text}\n`);
      }
      label = of;
    },
    end() {
      if (open) stream.write("\n");
    },
  };
}
