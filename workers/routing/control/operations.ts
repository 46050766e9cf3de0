/**
 * The operations of the control surface (BeamLine, control API, which names them and leaves open what they mean): projects, and what belongs to them.
 * Everything is the tenant's own. Ending what has ended, and cancelling what is cancelled, are answered like the first time.
 */
import { BeamlineError } from "../../../contracts/errors.ts";
import { malformed } from "../intake/refusal.ts";
import { neededText, optionalList, optionalObject, optionalText } from "./inputs.ts";
import type { Chats } from "./chats.ts";
import type { ControlRequest, Operations } from "./door.ts";
import { eventTypes, type Tell } from "./events.ts";
import type { Indexes } from "./indexes.ts";
import type { Project, Records, Subscription } from "./records.nats.ts";
import type { Tasks } from "./tasks.ts";

export interface OperationPorts {
  readonly records: Records;
  readonly tasks: Tasks;
  readonly chats: Chats;
  readonly indexes: Indexes;
  readonly tell: Tell;
  /** Epoch milliseconds. */
  readonly now: () => number;
}

/** How long a subscription lives, seconds. */
const TTL_SECONDS = 3_600;
const MAX_TTL_SECONDS = 86_400;

export function controlOperations({ records, tasks, chats, indexes, tell, now }: OperationPorts): Operations {
  return {
    "project.open": async (request) => {
      const name = optionalText(request.body, "name", "name", 255) ?? "";
      const metadata = optionalObject(request.body, "metadata");
      const make = (project_id: string): Project => ({
        project_id,
        name,
        metadata,
        status: "open",
        opened_at_ms: now(),
      });
      const { value, fresh } = await records.make("project", request, make);
      if (fresh) tell(request.tenant, "project.opened", value, request.traceId);
      return value;
    },

    "project.close": async ({ tenant, body, traceId }) => {
      const id = neededText(body, "project_id");
      let closing = false;
      const closed = await records.change("project", tenant, id, (project) => {
        closing = project.status === "open";
        return closing ? { ...project, status: "closed", closed_at_ms: now() } : project;
      });
      if (closing) {
        await indexes.cancelOf(tenant, id);
        tell(tenant, "project.closed", closed, traceId);
      }
      return closed;
    },

    "index.start": async (request) => indexes.start(request, await openProject(records, request, true)),
    "index.status": ({ tenant, body }) => indexes.status(tenant, neededText(body, "index_id")),
    "index.cancel": ({ tenant, body }) => indexes.cancel(tenant, neededText(body, "index_id")),

    "task.submit": async (request) => {
      const project_id = await openProject(records, request, false);
      return tasks.submit(request, tasks.askedIn(request.body), { ...(project_id !== "" && { project_id }) });
    },
    "task.status": ({ tenant, body }) => records.get("task", tenant, neededText(body, "task_id")),
    "task.cancel": ({ tenant, body }) => tasks.cancel(tenant, neededText(body, "task_id")),

    "chat.start": async (request) => chats.start(request, await openProject(records, request, false)),
    "chat.send": (request) => chats.send(request),
    "chat.cancel": ({ tenant, body }) => chats.cancel(tenant, neededText(body, "chat_id")),

    "events.subscribe": async (request) => {
      const types = optionalList(request.body, "types", eventTypes.length).map((type) => {
        const known = eventTypes.find((one) => one === type);
        if (known === undefined) throw malformed("types", `must hold some of ${eventTypes.join(", ")}`);
        return known;
      });
      const ttl = request.body["ttl_seconds"] ?? TTL_SECONDS;
      if (typeof ttl !== "number" || !Number.isInteger(ttl) || ttl < 1 || ttl > MAX_TTL_SECONDS)
        throw malformed("ttl_seconds", `must be a whole number from 1 to ${MAX_TTL_SECONDS}`);
      const make = (subscription_id: string): Subscription => ({
        subscription_id,
        subject: `${request.prefix}.events.inbox.${subscription_id}`,
        types,
        expires_at_ms: now() + ttl * 1_000,
      });
      return (await records.make("subscription", request, make)).value;
    },
  };
}

/** The project a request names, which must be open; empty when it may name none and does. */
async function openProject(records: Records, { tenant, body }: ControlRequest, needed: boolean): Promise<string> {
  const id = needed ? neededText(body, "project_id") : optionalText(body, "project_id");
  if (id === undefined) return "";
  if ((await records.get("project", tenant, id)).status === "open") return id;
  throw new BeamlineError("invalid_request", "the project is closed", { field: "project_id" });
}
