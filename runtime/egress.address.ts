/**
 * Which addresses the product may dial on a caller's behalf. Public unicast only; everything a machine or its network keeps to itself
 * is refused (loopback, private, link-local with the metadata services, CGNAT, multicast, documentation, and every form that smuggles
 * an IPv4 address into IPv6). Operators and tests name exceptions.
 */
import ipaddr from "ipaddr.js";
import { BeamlineError } from "../contracts/errors.ts";

/** One exception, read from its text. */
export interface Allowed {
  /** Name or address, lower case, when the exception names one. */
  readonly host?: string;
  /** Network, when the exception is one. */
  readonly network?: readonly [ipaddr.IPv4 | ipaddr.IPv6, number];
  /** Only this port, any when absent. */
  readonly port?: number;
}

/** Public IPv6 space handed out so far (RFC 4291). */
const globalUnicast6 = ipaddr.IPv6.parseCIDR("2000::/3");

/**
 * Reads exceptions: `host`, `host:port`, `10.0.0.0/8`, `10.0.0.0/8:8080`, `[::1]:8080`, `fd00::/8`.
 * Throws `invalid_argument` for anything else.
 */
export function parseAllowed(entries: readonly string[]): readonly Allowed[] {
  return entries.map((entry) => {
    const text = entry.trim().toLowerCase();
    const [, bracketed, plain, digits] =
      /^(?:\[([^\]]+)\]|([^:]+|[0-9a-f:./]*::[0-9a-f:./]*))(?::(\d{1,5}))?$/.exec(text) ?? [];
    const host = bracketed ?? plain;
    if (host === undefined || host === "")
      throw new BeamlineError("invalid_argument", `allow-list entry ${entry} is not host, host:port or network`);
    const port = digits === undefined ? {} : { port: Number(digits) };
    if (!host.includes("/")) return { host, ...port };
    if (!ipaddr.isValidCIDR(host))
      throw new BeamlineError("invalid_argument", `allow-list entry ${entry} is not a network`);
    return { network: ipaddr.parseCIDR(host), ...port };
  });
}

/** Why an address may not be dialled; undefined when it may. */
export function refusedBecause(address: string): string | undefined {
  if (!ipaddr.isValid(address)) return "not an IP address";
  const parsed = ipaddr.parse(address);
  if (parsed instanceof ipaddr.IPv4) return unlessUnicast(parsed.range());
  if (parsed.zoneId !== undefined) return "scoped address";
  if (parsed.isIPv4MappedAddress()) return unlessUnicast(parsed.toIPv4Address().range());
  return (
    unlessUnicast(parsed.range()) ?? (parsed.match(globalUnicast6) ? undefined : "outside the public address space")
  );
}

function unlessUnicast(range: string): string | undefined {
  return range === "unicast" ? undefined : range;
}

/** Whether an exception covers this host (as written by the caller), address and port. */
export function isAllowed(allowed: readonly Allowed[], host: string, address: string, port: number): boolean {
  const name = host.toLowerCase().replace(/\.$/, "");
  return allowed.some((entry) => {
    if (entry.port !== undefined && entry.port !== port) return false;
    if (entry.host !== undefined) return entry.host === name || entry.host === address;
    return entry.network !== undefined && inNetwork(address, entry.network);
  });
}

function inNetwork(address: string, network: readonly [ipaddr.IPv4 | ipaddr.IPv6, number]): boolean {
  const parsed = ipaddr.process(address);
  return parsed.kind() === network[0].kind() && parsed.match(network[0], network[1]);
}
