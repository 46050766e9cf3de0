/** What handlers may use of the worker and its host: nothing is reached any other way. */
import type { Neighbour } from "./neighbours.ts";
import type { Egress } from "../../runtime/egress.ts";
import type { Clock } from "../../runtime/clock.ts";
import type { Backups } from "./backup.ts";
import type { Confined } from "./files/confine.ts";
import type { Grants } from "./grants.ts";
import type { Ledger } from "./audit/ledger.ts";
import type { Plugins } from "./plugins/plugins.ts";
import type { Limits, Programs } from "./sandbox/run.ts";
import type { Secrets } from "./secrets.ts";
import type { Call, Json } from "./tool.ts";

export interface Host {
  readonly files: Confined;
  readonly programs: Programs;
  readonly limits: Limits;
  readonly egress: Egress;
  readonly backups: Backups;
  readonly grants: Grants;
  readonly ledger: Ledger;
  readonly plugins: Plugins;
  readonly secrets: Secrets;
  readonly clock: Clock;
  readonly newId: () => string;
  /** Name of this host. */
  readonly node: string;
  readonly places: {
    /** Data directory of the product. */
    readonly data: string;
    readonly plugins: string;
    readonly source: string;
    /** Configuration of the mail server, when there is one. */
    readonly smtp: string | undefined;
  };
  /** What of the product can be seen to answer, now. */
  neighbours(): readonly Neighbour[];
  readonly mayUpdateItself: boolean;
  /** What another tool says its target looks like; undefined when it does not say. Throws when it cannot be looked at. */
  seen(tool: string, input: Json, call: Call): Promise<string | undefined>;
  /** Does what another tool does, without its gates: for undoing and for chains. */
  runTool(tool: string, input: Json, call: Call): Promise<Json>;
}
