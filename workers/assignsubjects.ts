/**
 * Further subjects assignments may go to, beside `caf.exec.assign.v1` (BeamLine, DecideRequest, `assignment_subject`): one setting of the routing,
 * execution and usage workers. Each subject gets its own consumers, so that workers with different lists stand beside one another.
 */
import type { Bus } from "../bus/connect.ts";
import { tokenOf } from "../bus/keys.ts";
import { ensureStreams } from "../bus/streams.ts";
import { assignSubjectFault, execSubject } from "../contracts/execution/subjects.ts";
import { streams } from "../contracts/streams.ts";
import { list } from "../runtime/setting.ts";
import { busSettings } from "../runtime/settings.ts";

export const assignSettings = {
  BEAMLINE_EXEC_SUBJECTS: list(
    [],
    "Subjects beside caf.exec.assign.v1 that assignments may name, kept by the stream EXEC and taken by these execution workers.",
    { each: (item) => assignSubjectFault(item) === undefined, items: "subjects where nothing else goes," },
  ),
  BEAMLINE_STREAM_REPLICAS: busSettings.BEAMLINE_STREAM_REPLICAS,
};

/** The durable all execution workers share on `caf.exec.assign.v1`. */
export const EXEC_DURABLE = "exec-workers";

/** A subject, and a name made of a durable's for the consumer it has of its own. */
export interface AssignSubject {
  readonly subject: string;
  readonly durable: (base: string) => string;
}

/** The contract's own subject first, then the configured ones. */
export function assignSubjects(configured: readonly string[]): readonly AssignSubject[] {
  const more = [...new Set(configured)].filter((subject) => subject !== execSubject.assign);
  return [
    { subject: execSubject.assign, durable: (base) => base },
    ...more.map((subject): AssignSubject => ({ subject, durable: (base) => `${base}-${tokenOf(subject)}` })),
  ];
}

/** Makes the execution stream keep them; what another process made it keep stays. Throws as `ensureStreams`. */
export async function keepAssignSubjects(
  bus: Bus,
  subjects: readonly AssignSubject[],
  replicas?: number,
): Promise<void> {
  const more = subjects.map(({ subject }) => subject).filter((subject) => subject !== execSubject.assign);
  if (more.length === 0) return;
  const copies = replicas ?? (bus.clustered ? 3 : 1);
  await ensureStreams(bus, [{ ...streams.exec, subjects: [...streams.exec.subjects, ...more] }], { replicas: copies });
}
