/**
 * Commands of one tick in one write. The client hands each command to the socket by itself, and each is a system call that wakes the server:
 * with many calls under way that is most of what a command costs. Its own auto-pipelining does more than this and makes scripts slower.
 */
import type { Redis } from "ioredis";

/** From now on, on this and every later connection of the client. Order and answers of commands stay as they are. */
export function writeOncePerTick(redis: Redis): void {
  redis.on("connect", () => gather(redis.stream));
}

function gather(stream: Redis["stream"]): void {
  const write = stream.write.bind(stream) as (...args: readonly unknown[]) => boolean;
  let corked = false;
  const leave = (): void => {
    corked = false;
    stream.uncork();
  };
  const gathered = (...args: readonly unknown[]): boolean => {
    if (!corked) {
      corked = true;
      stream.cork();
      process.nextTick(leave); // after everything this tick and its promises still have to say
    }
    return write(...args);
  };
  stream.write = gathered;
}
