/** Node's flags of edge and workers, for the processes they are compared with. */
import { NODE_FLAGS } from "../../cli/child.ts";
import { nodeFlagsOf } from "./proc.ts";

/** As cli/child gives them. */
export const productionFlags: readonly string[] = NODE_FLAGS;

/** Throws when a process of the product runs with other flags than its comparison would. */
export function checkFlags(pid: number): void {
  const own = nodeFlagsOf(pid).join(" ");
  const ours = productionFlags.join(" ");
  if (own !== ours) throw new Error(`the product runs node ${own}, its comparison ${ours}`);
}
