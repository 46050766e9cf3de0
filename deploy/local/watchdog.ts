import { spawn } from "node:child_process";

// W1 A server never outlives the process that started it, not even when that process is killed with SIGKILL: the watchdog reads
//    a pipe only its parent can write to, and the end of that pipe without a farewell means that the parent is gone.
// W2 The watchdog runs in a session of its own, as the servers do: neither Ctrl-C nor a signal to the parent's group reaches it.

/** The pid to guard, then either a farewell (all is well) or the end of the pipe (the parent died): ask, wait 5 s, insist. */
const script = `
read -r pid || exit 0
read -r farewell && exit 0
kill -TERM "$pid" 2>/dev/null || exit 0
tries=0
while [ "$tries" -lt 50 ]; do
  sleep 0.1
  kill -0 "$pid" 2>/dev/null || exit 0
  tries=$((tries + 1))
done
kill -KILL "$pid" 2>/dev/null
`;

/** A small shell that ends a server when this process ends. Start it before the server, so that there is no moment unguarded. */
export interface Watchdog {
  /** From now on the server with this process id ends when this process ends. Call once. */
  guard(pid: number): void;
  /** The server is gone, or was never started: the watchdog goes too. Resolves when it has. */
  dismiss(): Promise<void>;
}

/** Starts a watchdog. It does nothing until told what to guard. */
export function startWatchdog(): Watchdog {
  const shell = spawn("/bin/sh", ["-c", script], { stdio: ["pipe", "ignore", "ignore"], detached: true });
  const gone = new Promise<void>((resolve) => {
    shell.once("exit", () => resolve());
    shell.once("error", () => resolve());
  });
  shell.stdin.on("error", () => {}); // It was killed by someone: then nothing is guarded, and the next start cleans up.
  let guarding = false;
  return {
    guard(pid) {
      guarding = true;
      shell.stdin.write(`${pid}\n`);
    },
    async dismiss() {
      shell.stdin.end(guarding ? "farewell\n" : "");
      await gone;
    },
  };
}
