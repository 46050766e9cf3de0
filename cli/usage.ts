/** `beamline usage`: what was used, per day and provider. */
import type { Command } from "commander";
import { execSubject } from "../contracts/execution/subjects.ts";
import { stackContext, type CommandContext } from "./exec.context.ts";

interface UsageOptions {
  readonly tenant: string;
  readonly from?: string;
  readonly to?: string;
  readonly provider?: string;
}

interface Totals {
  readonly records: readonly {
    readonly day: string;
    readonly provider_id: string;
    readonly requests: number;
    readonly by_status: Readonly<Record<string, number>>;
    readonly latency_ms_avg: number;
    readonly cost: number;
  }[];
  readonly total_requests: number;
  readonly total_cost: number;
}

/** Adds `usage`. */
export function usageCommand(program: Command, context: CommandContext = stackContext): void {
  program
    .command("usage")
    .description("Show what a tenant used, per day and provider.")
    .option("-t, --tenant <id>", "tenant", "default")
    .option("--from <date>", "first day, like 2026-01-31; 30 days back without it")
    .option("--to <date>", "last day; today without it")
    .option("-p, --provider <id>", "of this provider only")
    .action(async (options: UsageOptions, command: Command) => {
      const out = context.out(command);
      await using stack = await context.connect();
      const request = {
        tenant_id: options.tenant,
        start_date: options.from,
        end_date: options.to,
        provider_id: options.provider,
      };
      const totals = (await stack.caller.request(execSubject.usageTotals, request, {
        timeoutMs: 10_000,
        worker: "usage",
      })) as Totals;
      if (out.json) return out.record({ ...totals });
      const rows = totals.records.map(({ day, provider_id, requests, by_status, latency_ms_avg, cost }) => ({
        day,
        provider: provider_id,
        requests,
        failed: requests - (by_status["success"] ?? 0),
        latency_ms: latency_ms_avg,
        cost_usd: cost.toFixed(6),
      }));
      out.table(rows, "nothing was used");
      if (rows.length > 0) out.line(`${totals.total_requests} requests, ${totals.total_cost.toFixed(6)} USD`);
    });
}
