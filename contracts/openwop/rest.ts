/** REST operations as they travel over the bus. Their errors are ordinary error replies in the words of OpenWOP. */

export const restOperations = [
  "get_capabilities",
  "get_openapi",
  "get_workflow",
  "list_workflows",
  "apply_workflow",
  "create_run",
  "list_runs",
  "get_run",
  "poll_events",
  "cancel_run",
  "bulk_cancel_runs",
  "fork_run",
  "pause_run",
  "resume_run",
  "diff_runs",
  "get_ancestry",
  "debug_bundle",
  "resolve_interrupt",
  "inspect_token",
  "resolve_token",
  "get_artifact",
  "register_webhook",
  "list_webhooks",
  "unregister_webhook",
  "redrive_webhook",
  "verify_audit",
] as const;

export type RestOperation = (typeof restOperations)[number];

/** Largest request body over any surface, bytes of JSON: a run keeps its inputs twice, and both must fit into one message of the bus. */
export const MAX_BODY_BYTES = 3 * 1024 * 1024;

/** What the edge sends. Header names in lower case. */
export interface RestRequest {
  readonly params?: Readonly<Record<string, string>>;
  readonly query?: Readonly<Record<string, unknown>>;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: unknown;
  /** Origin of the REST surface as the client knows it, for URLs in the answer. */
  readonly base?: string;
}

export interface RestReply {
  readonly status: number;
  readonly body: unknown;
  readonly headers: Readonly<Record<string, string>>;
}

export function restSubject(operation: RestOperation): string {
  return `openwop.rest.v1.${operation}`;
}
