/**
 * Who may use which tool (aiOS tools, 1.4 capabilities). The effective set of an agent is its default set and whatever it was granted and
 * still has. Unknown agents have nothing.
 */

export const allCapabilities = (
  "fs_read fs_write fs_delete fs_permissions process_read process_manage service_read service_manage net_read net_write net_scan " +
  "firewall_read firewall_manage pkg_read pkg_manage sec_read sec_manage monitor_read hw_read git_read git_write code_gen self_read " +
  "self_update plugin_read plugin_manage plugin_execute container_read container_manage email_send"
).split(" ");

const words = (text: string): readonly string[] => text.split(" ");

/** Default sets by exact agent id. */
export const agents: Readonly<Record<string, readonly string[]>> = {
  "autonomy-loop": allCapabilities,
  "task-agent": allCapabilities,
  "system-agent": words("monitor_read service_read service_manage process_read"),
  "network-agent": words("net_read net_write net_scan firewall_read firewall_manage"),
  "security-agent": words("sec_read sec_manage net_read net_scan process_read monitor_read fs_read"),
  "monitoring-agent": words("monitor_read net_read process_read fs_read"),
  "storage-agent": words("fs_read fs_write fs_delete fs_permissions monitor_read process_manage"),
  "package-agent": words("pkg_read pkg_manage"),
  "learning-agent": words("monitor_read process_read fs_read"),
  "creator-agent": words(
    "fs_read fs_write code_gen git_read git_write process_manage plugin_read plugin_manage plugin_execute",
  ),
  "web-agent": words("net_read net_write fs_read fs_write"),
};

/** A capability, maybe only for paths that match. */
export interface Held {
  /** `fs_write`; `fs_*` for all of a kind, `*` for all. */
  readonly capability: string;
  /** Glob over absolute paths: `*` matches anything, also slashes. Absent: everywhere. */
  readonly resource?: string;
}

/**
 * Reads a capability as granted: `fs_write`, `fs.write`, `fs:write`, each with an optional resource (`fs_write:/srv/*`,
 * `fs:write:/etc/nginx/*`), `fs:*`, `*`. Undefined when it is none of these.
 */
export function parseHeld(text: string): Held | undefined {
  const at = text.indexOf(":/");
  const withResource = at > 0;
  // `fs:write:*` is fs_write everywhere.
  if (/^[a-z]+[:.][a-z]+:\*$/.test(text)) return parseHeld(text.slice(0, -2));
  const name = (withResource ? text.slice(0, at) : text).replaceAll(/[.:]/g, "_");
  if (!/^(?:\*|[a-z][a-z0-9_-]{0,62}(?:_\*)?)$/.test(name)) return undefined;
  return withResource ? { capability: name, resource: text.slice(at + 1) } : { capability: name };
}

/** Which of the needed capabilities an agent lacks, for the given absolute paths. */
export function lacking(needs: readonly string[], held: readonly Held[], paths: readonly string[]): string[] {
  return needs.filter((need) => {
    const fitting = held.filter(({ capability }) => covers(capability, need));
    if (fitting.some(({ resource }) => resource === undefined)) return false;
    if (paths.length === 0) return true;
    return !paths.every((path) => fitting.some(({ resource = "" }) => matchesResource(resource, path)));
  });
}

function covers(capability: string, need: string): boolean {
  return (
    capability === need || capability === "*" || (capability.endsWith("_*") && need.startsWith(capability.slice(0, -1)))
  );
}

/** Linear in the length of both: pieces between stars are looked for one after the other. */
function matchesResource(pattern: string, path: string): boolean {
  const pieces = pattern.split("*");
  const [first = "", ...rest] = pieces;
  if (rest.length === 0) return path === first;
  if (!path.startsWith(first)) return false;
  const last = rest.pop() ?? "";
  let from = first.length;
  for (const piece of rest) {
    const found = path.indexOf(piece, from);
    if (found < 0) return false;
    from = found + piece.length;
  }
  return path.length - last.length >= from && path.endsWith(last);
}

/** The refusal in aiOS's words: `Capability denied: missing ["fs_read"]`. */
export function wordDenied(missing: readonly string[]): string {
  return `Capability denied: missing [${missing.map((name) => JSON.stringify(name)).join(", ")}]`;
}
