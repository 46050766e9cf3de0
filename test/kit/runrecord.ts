import type { RunRecord } from "../../contracts/openwop/log.ts";

/** What a run is created with, the least there can be. */
export function runRecord(runId: string, more: Partial<RunRecord> = {}): RunRecord {
  return {
    runId,
    workflowId: "w",
    definition: "d",
    workflowVersion: "1",
    owner: { tenant: "acme" },
    inputs: {},
    variables: [],
    channels: {},
    configurable: {},
    tags: [],
    metadata: {},
    masking: "mask",
    traceparent: "",
    engineVersion: 1,
    ...more,
  };
}
