/**
 * The execution worker: takes assignments from `caf.exec.assign.v1`, and the subjects it is told to, and does them (BeamLine, execution contract).
 *
 * Opened in this order, closed in reverse: the way out, the cancellations, the heartbeat, then intake. Intake stops first and finishes what it has
 * within the drain time; what is left goes back to the stream.
 */
import { hostname } from "node:os";
import { join } from "node:path";
import { consume, type ConsumerEvent } from "../../bus/consume.ts";
import type { Heartbeat } from "../../contracts/execution/heartbeat.ts";
import { buckets, objects, streams } from "../../contracts/streams.ts";
import { systemClock } from "../../runtime/clock.ts";
import { createEgress } from "../../runtime/egress.ts";
import { systemIds } from "../../runtime/ids.ts";
import { bool, durationMs, int, list, optional, text } from "../../runtime/setting.ts";
import { assignSettings, assignSubjects, EXEC_DURABLE, keepAssignSubjects } from "../assignsubjects.ts";
import { defineWorker, type WorkerModule } from "../module.ts";
import { CancelBook, followCancellations } from "./cancellations.ts";
import { startHeartbeat } from "./heartbeat.ts";
import { busInputs } from "./inputs.ts";
import { Intake } from "./intake.ts";
import { Jobs, type Job } from "./job.ts";
import { askJob } from "./jobs/ask.ts";
import { fileJobs } from "./jobs/files.ts";
import { httpJobs } from "./jobs/http.ts";
import { echoJob, sleepJob } from "./jobs/plain.ts";
import { executionMeasures } from "./measures.ts";
import { busReports } from "./reports.ts";
import { busStarted } from "./started.ts";

/** How long a dead worker's assignment waits for another one, milliseconds. */
const LEASE_MS = 10_000;

export const executionSettings = {
  ...assignSettings,
  BEAMLINE_EXEC_CONCURRENCY: int(8, "Jobs one execution worker does at a time, of each subject.", { min: 1, max: 256 }),
  BEAMLINE_EXEC_JOB_TIMEOUT_MS: durationMs(60_000, "Longest a job may take, whatever its assignment allows.", {
    min: 100,
    max: 3_600_000,
  }),
  BEAMLINE_EXEC_HEARTBEAT_MS: durationMs(5_000, "How often an execution worker gives a sign of life.", {
    min: 100,
    max: 600_000,
  }),
  BEAMLINE_EXEC_WORKER_ID: text(
    optional,
    "Name of this execution worker in heartbeats and marks; host, process and a random part when not given.",
  ),
  BEAMLINE_EXEC_FS_ROOT: text(
    optional,
    "Folder below which file jobs read and write, a folder per tenant; `exec-files` in the data directory when not given.",
  ),
  BEAMLINE_EXEC_FS_MAX_BYTES: int(4 * 1024 * 1024, "Largest file a job reads or writes, in bytes.", {
    min: 1,
    max: 64 * 1024 * 1024,
  }),
  BEAMLINE_EXEC_EGRESS_ALLOW: list(
    optional,
    "Private addresses HTTP jobs may reach all the same: host, host:port or a network, separated by commas.",
  ),
  BEAMLINE_EXEC_LEAVE_UNKNOWN: bool(
    false,
    "Whether jobs of unknown types are left to other workers on the same subject instead of refused.",
  ),
} as const;

/** The worker with further job types, registered in code; one of ours gives way to one of the same type. */
export function executionWorkerWith(more: readonly Job[]): WorkerModule<typeof executionSettings> {
  return defineWorker({
    name: "execution",
    settings: executionSettings,
    streams: [streams.exec, streams.execAcks, streams.deadLetters],
    buckets: [buckets.execStarted, buckets.execCancelled],
    objects: [objects.payloads],

    async open(scope, { config, bus, caller, log, metrics }) {
      const workerId = config.BEAMLINE_EXEC_WORKER_ID ?? `${hostname()}-${process.pid}-${systemIds.v4().slice(0, 8)}`;
      const concurrency = config.BEAMLINE_EXEC_CONCURRENCY;
      const subjects = assignSubjects(config.BEAMLINE_EXEC_SUBJECTS);
      const egress = scope.use("egress", createEgress({ allow: config.BEAMLINE_EXEC_EGRESS_ALLOW ?? [] }), (one) =>
        one.close(),
      );
      const root = config.BEAMLINE_EXEC_FS_ROOT ?? join(config.BEAMLINE_DATA_DIR, "exec-files");
      const files = fileJobs({ root, maxBytes: config.BEAMLINE_EXEC_FS_MAX_BYTES });
      const jobs = new Jobs([
        echoJob,
        sleepJob(systemClock),
        ...httpJobs(egress),
        ...files,
        askJob(caller, bus),
        ...more,
      ]);
      const cancellations = new CancelBook();
      await scope.open(
        "cancellations",
        () => followCancellations(bus, cancellations),
        (follower) => follower.stop(),
      );
      const measures = executionMeasures(metrics, new Set(jobs.types));
      measures.connected(true);
      const unwatch = [
        bus.onDisconnect(() => measures.connected(false)),
        bus.onReconnect(() => measures.connected(true)),
      ];
      scope.use("connection", unwatch, (stops) => stops.forEach((stop) => stop()));
      const intake = new Intake({
        workerId,
        jobs,
        inputs: busInputs(bus, egress),
        reports: busReports(bus, () => systemClock.now()),
        started: busStarted(bus),
        cancellations,
        measures,
        clock: systemClock,
        log,
        jobTimeoutMs: config.BEAMLINE_EXEC_JOB_TIMEOUT_MS,
        leaveUnknown: config.BEAMLINE_EXEC_LEAVE_UNKNOWN,
      });
      let trouble = false;
      const beat = {
        workerId,
        everyMs: config.BEAMLINE_EXEC_HEARTBEAT_MS,
        concurrency: concurrency * subjects.length,
        inFlight: () => intake.inFlight,
        degraded: () => trouble,
        metadata: { job_types: jobs.types.join(",") },
        onBeat(sign: Heartbeat) {
          measures.beat(sign);
          for (const { subject, durable } of subjects)
            void bus.jsm.consumers.info(streams.exec.name, durable(EXEC_DURABLE)).then(
              ({ num_pending }) => measures.waiting(subject, num_pending),
              () => undefined, // not there yet, or the bus is away: the next beat asks again
            );
        },
      };
      scope.use("heartbeat", startHeartbeat(bus, beat), (stop) => stop());
      const onEvent = (event: ConsumerEvent): void => {
        if (event.type === "trouble") trouble = true;
        if (event.type === "recovered") trouble = false;
        if (event.type === "dead")
          log.error("an assignment is a dead letter", {
            reason: event.reason,
            error: event.error,
            trace_id: event.context.headers["trace_id"],
          });
        if (event.type === "trouble" || event.type === "undecided")
          log.warn("taking assignments is in trouble", { error: event.error });
      };
      await keepAssignSubjects(bus, subjects, config.BEAMLINE_STREAM_REPLICAS);
      for (const { subject, durable } of subjects)
        await scope.open(
          `assignments of ${subject}`,
          () =>
            consume(bus, {
              stream: streams.exec,
              durable: durable(EXEC_DURABLE),
              filterSubjects: [subject],
              handler: intake.handle,
              concurrency,
              ackWaitMs: LEASE_MS,
              maxDeliver: 6,
              backoffMs: [1_000, 2_000, 4_000],
              maxWorkMs: config.BEAMLINE_EXEC_JOB_TIMEOUT_MS + 60_000,
              onEvent,
            }),
          (intaking, deadline) => intaking.stop(Date.now() + deadline.remainingMs()),
        );
      measures.taking(subjects.length);
      return [];
    },
  });
}

export const executionWorker = executionWorkerWith([]);
