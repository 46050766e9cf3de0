/**
 * The REST surface over the bus: one subject per operation, `openwop.rest.v1.<operation>`, with what HTTP carried in its JSON. The edge
 * only forwards; the operations are the same that gRPC uses.
 */
import { requestEndpoint, type Endpoint } from "../../bus/endpoint.ts";
import { parseJson } from "../../bus/call.ts";
import { codeIn, errorBody } from "../../contracts/errorbody.ts";
import { BeamlineError, meaning } from "../../contracts/errors.ts";
import { objectOr, textOr, type Json } from "../../contracts/openwop/json.ts";
import { restOperations, restSubject, type RestOperation, type RestReply } from "../../contracts/openwop/rest.ts";
import { askerOf, type Answer, type Asker } from "./caller.ts";
import { isReplayed, REPLAY_HEADER } from "./idempotency.ts";
import { capabilities, openapi } from "./operations/capabilities.ts";
import { bulkCancel, cancelRun, pauseRun, resumeRun } from "./operations/control.ts";
import { forkRun } from "./operations/fork.ts";
import { listRuns } from "./operations/list.ts";
import { inspectByToken, resolveByRun, resolveByToken } from "./operations/interrupts.ts";
import { debugBundle, diffRuns, getAncestry, getRun, getWorkflow, pollEvents } from "./operations/read.ts";
import { createRun } from "./operations/start.ts";
import {
  artifactAnswer,
  redriveWebhook,
  listWebhooks,
  registerWebhook,
  unregisterWebhook,
  verifyAudit,
} from "./operations/surroundings.ts";
import { applyWorkflow, listWorkflows } from "./operations/workflows.ts";
import type { RunsPorts } from "./ports.ts";

const TIMEOUT_MS = 30_000;

interface Rest {
  readonly params: Json;
  readonly query: Json;
  readonly headers: Json;
  readonly body: unknown;
}

type Operate = (ports: RunsPorts, asker: Asker, rest: Rest) => Promise<Answer>;

const param = ({ params }: Rest, name: string): string => textOr(params[name], "");
const heading = ({ headers }: Rest, name: string): string | undefined =>
  typeof headers[name] === "string" ? headers[name] : undefined;

const operations: Readonly<Record<RestOperation, Operate>> = {
  get_capabilities: (ports) => capabilities(ports),
  get_openapi: () => openapi(),
  get_workflow: (ports, asker, rest) => getWorkflow(ports, asker, param(rest, "workflowId")),
  list_workflows: (ports, asker) => listWorkflows(ports, asker),
  apply_workflow: (ports, asker, rest) => applyWorkflow(ports, asker, param(rest, "workflowId"), rest.body),
  create_run: (ports, asker, rest) =>
    createRun(ports, asker, rest.body, {
      transport: "rest",
      dedup: heading(rest, "x-dedup"),
      forceEngineVersion: heading(rest, "x-force-engine-version"),
    }),
  list_runs: (ports, asker, rest) => listRuns(ports, asker, rest.query),
  get_run: (ports, asker, rest) => getRun(ports, asker, param(rest, "runId")),
  poll_events: (ports, asker, rest) => pollEvents(ports, asker, param(rest, "runId"), rest.query),
  cancel_run: (ports, asker, rest) => cancelRun(ports, asker, param(rest, "runId"), rest.body),
  bulk_cancel_runs: (ports, asker, rest) => bulkCancel(ports, asker, rest.body),
  fork_run: (ports, asker, rest) => forkRun(ports, asker, param(rest, "runId"), rest.body),
  pause_run: (ports, asker, rest) => pauseRun(ports, asker, param(rest, "runId"), rest.body),
  resume_run: (ports, asker, rest) => resumeRun(ports, asker, param(rest, "runId"), rest.body),
  diff_runs: (ports, asker, rest) => diffRuns(ports, asker, param(rest, "runId"), rest.query["against"]),
  get_ancestry: (ports, asker, rest) => getAncestry(ports, asker, param(rest, "runId")),
  debug_bundle: (ports, asker, rest) => debugBundle(ports, asker, param(rest, "runId")),
  resolve_interrupt: (ports, asker, rest) =>
    resolveByRun(ports, asker, param(rest, "runId"), param(rest, "nodeId"), rest.body),
  inspect_token: (ports, _asker, rest) => inspectByToken(ports, param(rest, "*")),
  resolve_token: (ports, asker, rest) => resolveByToken(ports, asker, param(rest, "*"), rest.body),
  get_artifact: (ports, asker, rest) => artifactAnswer(ports, asker, param(rest, "runId"), param(rest, "artifactId")),
  register_webhook: (ports, asker, rest) => registerWebhook(ports, asker, rest.body),
  list_webhooks: (ports, asker) => listWebhooks(ports, asker),
  unregister_webhook: (ports, asker, rest) => unregisterWebhook(ports, asker, param(rest, "webhookId"), rest.query),
  redrive_webhook: (ports, asker, rest) => redriveWebhook(ports, asker, param(rest, "webhookId")),
  verify_audit: (ports, asker, rest) => verifyAudit(ports, asker, rest.query),
};

/** A refusal that was kept under an idempotency key is told with the header that says so; any other one goes its way. */
function keptRefusal(thrown: unknown): Answer {
  if (!(thrown instanceof BeamlineError) || !isReplayed(thrown)) throw thrown;
  const { http } = meaning(codeIn("openwop", thrown.code));
  return { status: http, body: errorBody(thrown, "openwop"), headers: { [REPLAY_HEADER]: "true" } };
}

export function restEndpoints(ports: RunsPorts): Endpoint[] {
  return restOperations.map((name) =>
    requestEndpoint(
      { subject: restSubject(name), dialect: "openwop", timeoutMs: TIMEOUT_MS },
      async (request, context) => {
        const given = objectOr(parseJson(request === "" ? "{}" : request));
        const rest: Rest = {
          params: objectOr(given["params"]),
          query: objectOr(given["query"]),
          headers: objectOr(given["headers"]),
          body: given["body"],
        };
        const asker = askerOf(context, { base: textOr(given["base"], "") });
        const { status, body, headers } = await operations[name](ports, asker, rest).catch(keptRefusal);
        return JSON.stringify({ status, body, headers: headers ?? {} } satisfies RestReply);
      },
    ),
  );
}
