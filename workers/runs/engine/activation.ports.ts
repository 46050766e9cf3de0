/** What executing a run needs of the rest. */
import type { RunState } from "../../../contracts/openwop/state.ts";
import type { Clock } from "../../../runtime/clock.ts";
import type { Ids } from "../../../runtime/ids.ts";
import type { Logger } from "../../../runtime/log.ts";
import type { Limits } from "./due.ts";
import type { Invocations } from "./invocations.ts";
import type { RunLog } from "../log.ts";
import type { RunMetrics } from "../metrics.ts";
import type { NodeType } from "./nodetype.ts";

export interface ActivationPorts {
  readonly clock: Clock;
  readonly ids: Ids;
  readonly logger: Logger;
  readonly nodeTypes: ReadonlyMap<string, NodeType>;
  /** Node types of other owners, by prefix: served on the bus. */
  readonly customType: (typeId: string) => NodeType | undefined;
  readonly capabilities: ReadonlySet<string>;
  readonly log: RunLog;
  readonly invocations: Invocations;
  readonly limits: Limits;
  readonly metrics: RunMetrics;
  /** Places for runs that wait here for a moment instead of being put down. */
  readonly shortWaits: { enter(): boolean; leave(): void };
  /** Wakes the run at a time (epoch milliseconds), durably. */
  wakeAt(state: RunState, dueMs: number): Promise<void>;
}
