/** The REST table of OpenWOP beside its gRPC twins: paths here, operations in the runs worker (OpenWOP, REST table). */
import type { RestOperation } from "../../contracts/openwop/rest.ts";

export interface RestRoute {
  readonly method: "GET" | "POST" | "PUT" | "DELETE";
  /** As fastify writes it; a doubled colon is a colon. */
  readonly path: string;
  readonly operation: RestOperation;
  /** Needs no bearer. */
  readonly open?: true;
  /** Not counted against the in-flight cap. */
  readonly exempt?: true;
}

export const restRoutes: readonly RestRoute[] = [
  { method: "GET", path: "/.well-known/openwop", operation: "get_capabilities", open: true, exempt: true },
  { method: "GET", path: "/v1/openapi.json", operation: "get_openapi", open: true, exempt: true },
  { method: "GET", path: "/v1/workflows", operation: "list_workflows" },
  { method: "GET", path: "/v1/workflows/:workflowId", operation: "get_workflow" },
  { method: "PUT", path: "/v1/workflows/:workflowId", operation: "apply_workflow" },
  { method: "GET", path: "/v1/runs", operation: "list_runs" },
  { method: "POST", path: "/v1/runs", operation: "create_run" },
  { method: "POST", path: "/v1/runs::bulk-cancel", operation: "bulk_cancel_runs" },
  { method: "POST", path: "/v1/runs/:runId/cancel", operation: "cancel_run" },
  { method: "GET", path: "/v1/runs/:runId/ancestry", operation: "get_ancestry" },
  { method: "GET", path: "/v1/runs/:runId/debug-bundle", operation: "debug_bundle" },
  { method: "POST", path: "/v1/runs/:runId/interrupts/:nodeId", operation: "resolve_interrupt" },
  { method: "GET", path: "/v1/runs/:runId/artifacts/:artifactId", operation: "get_artifact" },
  { method: "GET", path: "/v1/interrupts/*", operation: "inspect_token", open: true },
  { method: "POST", path: "/v1/interrupts/*", operation: "resolve_token", open: true },
  { method: "POST", path: "/v1/webhooks", operation: "register_webhook" },
  { method: "GET", path: "/v1/webhooks", operation: "list_webhooks" },
  { method: "DELETE", path: "/v1/webhooks/:webhookId", operation: "unregister_webhook" },
  { method: "POST", path: "/v1/webhooks/:webhookId/redrive", operation: "redrive_webhook" },
  { method: "GET", path: "/v1/audit/verify", operation: "verify_audit" },
];

/** What a run's path may end in after a colon; without one it is the run itself. */
export const runVerbs: Readonly<Record<string, Readonly<Record<string, RestOperation>>>> = {
  GET: { "": "get_run", diff: "diff_runs" },
  POST: { fork: "fork_run", pause: "pause_run", resume: "resume_run" },
};

/** `run:fork` as its run and its verb; only the known verbs are split off, an id may have colons of its own. */
export function splitVerb(
  target: string,
  verbs: Readonly<Record<string, RestOperation>>,
): { readonly runId: string; readonly operation: RestOperation | undefined } {
  const colon = target.lastIndexOf(":");
  const verb = colon < 0 ? "" : target.slice(colon + 1);
  const operation = verb === "" ? undefined : verbs[verb];
  if (operation !== undefined) return { runId: target.slice(0, colon), operation };
  return { runId: target, operation: verbs[""] };
}
