/** Signs of life with what the worker really uses (BeamLine, WorkerHeartbeat). */
import { availableParallelism } from "node:os";
import type { Bus } from "../../bus/connect.ts";
import { heartbeatJson, type Heartbeat } from "../../contracts/execution/heartbeat.ts";
import { execSubject } from "../../contracts/execution/subjects.ts";

export interface HeartbeatOptions {
  readonly workerId: string;
  readonly everyMs: number;
  readonly concurrency: number;
  readonly inFlight: () => number;
  /** Whether something the worker needs is away. */
  readonly degraded: () => boolean;
  readonly metadata: Readonly<Record<string, string>>;
  /** Told of each beat, sent or not. */
  readonly onBeat?: (beat: Heartbeat) => void;
}

/** Beats at once and then every `everyMs`. Gives back how to say goodbye: one last beat, `draining`, and silence. */
export function startHeartbeat(bus: Bus, options: HeartbeatOptions): () => void {
  const { workerId, everyMs, concurrency, inFlight, degraded, metadata, onBeat } = options;
  let cpu = process.cpuUsage();
  let at = performance.now();
  const beat = (more: Readonly<Record<string, string>> = {}): void => {
    const now = performance.now();
    const used = process.cpuUsage(cpu);
    const share = now > at ? (used.user + used.system) / 1_000 / (now - at) / availableParallelism() : 0;
    cpu = process.cpuUsage();
    at = now;
    const jobs = inFlight();
    const draining = "draining" in more;
    const message: Heartbeat = {
      worker_id: workerId,
      timestamp: new Date().toISOString(),
      status: draining || degraded() ? "degraded" : jobs >= concurrency ? "busy" : "ready",
      resources: {
        cpu: Math.min(1, Math.round(share * 1_000) / 1_000),
        gpu: 0,
        mem_bytes: process.memoryUsage.rss(),
        jobs_in_flight: jobs,
      },
      metadata: { ...metadata, ...more },
    };
    onBeat?.(message);
    if (bus.connected) bus.send(execSubject.heartbeat, JSON.stringify(heartbeatJson(message)));
  };
  beat();
  const timer = setInterval(() => beat(), everyMs);
  timer.unref();
  return () => {
    clearInterval(timer);
    beat({ draining: "true" });
  };
}
