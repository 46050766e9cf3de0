import type { Version } from "./version.ts";

/** The servers the stack cannot do without. */
export type ServerName = "nats" | "redis";

/** What is asked of one server, and what it is called where it may be found. */
export interface Requirement {
  readonly name: ServerName;
  /** Name of the executable. */
  readonly binary: string;
  /** Name of the Debian and Ubuntu package that holds it. */
  readonly debianPackage: string;
  /** Oldest version that will do. */
  readonly minimum: Version;
  /** Why nothing older will do, to be read after "older than 2.12: ". */
  readonly because: string;
  /** The variable that names a server to use instead of a local one. */
  readonly urlVariable: string;
}

/** The only list of servers and their oldest versions. */
export const requirements: Readonly<Record<ServerName, Requirement>> = {
  nats: {
    name: "nats",
    binary: "nats-server",
    debianPackage: "nats-server",
    minimum: [2, 12, 0],
    because: "it has no scheduled messages, atomic batch publish or per-message TTL",
    urlVariable: "NATS_URL",
  },
  redis: {
    name: "redis",
    binary: "redis-server",
    debianPackage: "redis-server",
    minimum: [7, 0, 0],
    because: "it has no functions",
    urlVariable: "REDIS_URL",
  },
};

/** `2.12` for `[2, 12, 0]`: how a minimum is said. */
export function minimumText({ minimum: [major, minor] }: Requirement): string {
  return minor === 0 ? String(major) : `${major}.${minor}`;
}
