import { LocalStackError, reasonOf } from "./failure.ts";
import { SilentServer, natsGreeting } from "./greeting.nats.ts";
import { redisGreeting } from "./greeting.redis.ts";
import { minimumText, requirements } from "./requirements.ts";
import type { Requirement } from "./requirements.ts";
import { isAtLeast, parseVersion } from "./version.ts";

/** A server someone else runs, found to be there and recent enough. */
export interface NamedServer {
  readonly version: string;
  readonly port: number;
  readonly note?: string;
}

/**
 * Looks at the NATS server a URL names (the first that answers, of a list with commas). It is used as it is: nothing is sent.
 * Throws LocalStackError when none answers, or when the one that does is too old, and says why.
 */
export async function namedNats(urls: string): Promise<NamedServer> {
  const failures: string[] = [];
  for (const text of urls.split(",")) {
    const url = readUrl(text.trim().includes("://") ? text.trim() : `nats://${text.trim()}`, requirements.nats);
    const port = Number(url.port || 4222);
    if (url.protocol === "ws:" || url.protocol === "wss:")
      return { version: "unknown", port, note: "version not checked: WebSocket" };
    const host = url.hostname.replace(/^\[|\]$/g, "");
    try {
      const greeting = await natsGreeting(host, port);
      refuseTooOld(requirements.nats, shown(url), greeting.version);
      const note = greeting.jetstream
        ? {}
        : { note: "this server itself has no JetStream: another one of its cluster must" };
      return { version: greeting.version, port, ...note };
    } catch (error) {
      if (error instanceof LocalStackError) throw error;
      if (error instanceof SilentServer && url.protocol === "tls:") {
        return { version: "unknown", port, note: "version not checked: TLS comes before the greeting" };
      }
      failures.push(`${shown(url)}: ${reasonOf(error)}`);
    }
  }
  throw new LocalStackError(`no server that NATS_URL names can be used. ${failures.join("; ")}`);
}

/** Looks at the Redis server a URL names. Throws LocalStackError when it cannot be used, and says why. */
export async function namedRedis(text: string): Promise<NamedServer> {
  const url = readUrl(text, requirements.redis);
  let version: string;
  try {
    ({ version } = await redisGreeting(text));
  } catch (error) {
    throw new LocalStackError(`the server REDIS_URL names cannot be used. ${shown(url)}: ${reasonOf(error)}`);
  }
  refuseTooOld(requirements.redis, shown(url), version);
  return { version, port: Number(url.port || 6379) };
}

function refuseTooOld(requirement: Requirement, where: string, version: string): void {
  if (isAtLeast(parseVersion(version), requirement.minimum)) return;
  throw new LocalStackError(
    `${where} (named by ${requirement.urlVariable}) runs ${requirement.binary} ${version || "of unknown version"}, older than ` +
      `${minimumText(requirement)}: ${requirement.because}. Name a newer one, or unset ${requirement.urlVariable} and one is started here.`,
  );
}

function readUrl(text: string, requirement: Requirement): URL {
  const url = URL.parse(text);
  if (url !== null) return url;
  throw new LocalStackError(`${requirement.urlVariable} is not a URL: ${JSON.stringify(text)}`);
}

/** The URL without its password. */
function shown(url: URL): string {
  return `${url.protocol}//${url.host || url.pathname}`;
}
