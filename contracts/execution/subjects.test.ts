import { expect, test } from "vitest";
import { assignSubjectFault } from "./subjects.ts";

test.each(["caf.exec.assign.v1", "caf.exec.assign.gpu", "work.gpu_1", "a"])("assignments may go to %s", (subject) => {
  expect(assignSubjectFault(subject)).toBeUndefined();
});

test.each([
  ["", "must be a subject"],
  ["caf..x", "must be a subject"],
  ["caf.>", "must be a subject"],
  ["$KV.policies.acme", "must be a subject"],
  ["x".repeat(256), "must have at most 255 characters"],
  ["caf.exec.result.v1", "is a subject where other messages go"],
  ["caf.exec.assign.v1.ack", "is a subject where other messages go"],
  ["caf.exec.assign.gpu.dlq", "is a subject where other messages go"],
  ["caf.worker.heartbeat.v1", "is a subject where other messages go"],
  ["beamline.usage.v1.metered", "is a subject where other messages go"],
  ["log.routing.keys", "is a subject where other messages go"],
  ["retry.exec.deadline.x", "is a subject where other messages go"],
  ["_INBOX_WORKER.x", "is a subject where other messages go"],
])("not to %j", (subject, why) => {
  expect(assignSubjectFault(subject)).toContain(why);
});
