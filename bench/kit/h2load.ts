/** h2load of nghttp2 as gRPC client: one prebuilt request, over and over. */
import { execFile } from "node:child_process";
import { accessSync, constants } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { promisify } from "node:util";
import type { Load } from "../case.ts";
import { endedChildrenCpuSeconds } from "./proc.ts";

export interface H2Load {
  /** `host:port`. */
  readonly address: string;
  readonly path: string;
  /** The request message. */
  readonly body: Uint8Array;
  readonly count: number;
  /** Connections, and calls in flight on each. */
  readonly connections: number;
  readonly streams: number;
}

const WITHIN_MS = 60_000;
const run = promisify(execFile);

/** Whether there is one on PATH. */
export function hasH2load(): boolean {
  return (process.env["PATH"] ?? "").split(delimiter).some((folder) => {
    try {
      accessSync(join(folder, "h2load"), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

export const howToGetH2load = "h2load is not on PATH: on Debian and Ubuntu, apt-get install nghttp2-client";

/**
 * One load. Throws when a request got no HTTP answer. A gRPC error is HTTP 200 to h2load: count the good answers at the server.
 */
export async function h2load({ address, path, body, count, connections, streams }: H2Load): Promise<Load> {
  const folder = await mkdtemp(join(tmpdir(), "beamline-h2load-"));
  try {
    const frame = join(folder, "frame.bin");
    await writeFile(frame, framed(body));
    const load = ["-n", String(count), "-c", String(connections), "-m", String(streams), "-t", "1", "-d", frame];
    const headers = ["-H", "content-type: application/grpc", "-H", "te: trailers"];
    const before = endedChildrenCpuSeconds();
    const { stdout } = await run("h2load", [...load, ...headers, `http://${address}${path}`], { timeout: WITHIN_MS });
    const spent = endedChildrenCpuSeconds() - before;
    const seconds = secondsOf(/^finished in ([\d.]+)(us|ms|s|m),/m.exec(stdout));
    const good = Number(/(\d+) succeeded/.exec(stdout)?.[1]);
    if (seconds === undefined || good !== count) throw new Error(`h2load: ${stdout}`);
    return { count, seconds, cpuSeconds: { client: spent } };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** A gRPC message on the wire: not compressed, its length, itself. */
function framed(body: Uint8Array): Buffer {
  const head = Buffer.alloc(5);
  head.writeUInt32BE(body.length, 1);
  return Buffer.concat([head, body]);
}

const unitSeconds: Readonly<Record<string, number>> = { us: 1e-6, ms: 1e-3, s: 1, m: 60 };

function secondsOf(found: RegExpExecArray | null): number | undefined {
  const [, value, unit] = found ?? [];
  const factor = unitSeconds[unit ?? ""];
  return value === undefined || factor === undefined ? undefined : Number(value) * factor;
}
