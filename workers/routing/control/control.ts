/** The control surface, put together. */
import type { Caller } from "../../../bus/call.ts";
import type { Bus } from "../../../bus/connect.ts";
import type { Answer, UnaryEndpoint } from "../../../bus/endpoint.ts";
import type { Scope } from "../../../runtime/lifecycle.ts";
import type { Logger } from "../../../runtime/log.ts";
import { Chats } from "./chats.ts";
import { controlEndpoints } from "./door.ts";
import { busEvents } from "./events.ts";
import { Indexes } from "./indexes.ts";
import { controlOperations } from "./operations.ts";
import { Records } from "./records.nats.ts";
import { Tasks } from "./tasks.ts";

export interface ControlPorts {
  readonly bus: Bus;
  readonly caller: Caller;
  readonly log: Logger;
  /** The decide subject's own answer. */
  readonly decide: Answer;
  readonly token: string | undefined;
  readonly newId: () => string;
  /** Epoch milliseconds. */
  readonly now: () => number;
}

/** Opens what the operations need in the scope. Throws as `consume`. */
export async function openControl(scope: Scope, ports: ControlPorts): Promise<UnaryEndpoint[]> {
  const { bus, caller, log, decide, token, newId, now } = ports;
  const records = new Records(bus);
  const onTrouble = (error: unknown): void => log.warn("an event of the control surface could not be told", { error });
  const tell = busEvents(bus, records, { newId, now, onTrouble });
  const tasks = new Tasks({ bus, caller, records, tell, decide, now, log });
  const chats = new Chats({ records, tasks, tell, now });
  const indexes = scope.use("control indexes", new Indexes({ caller, records, tell, now }), (one) => one.drain());
  await scope.open(
    "control results",
    () => tasks.follow(),
    (one, deadline) => one.stop(Date.now() + deadline.remainingMs()),
  );
  return controlEndpoints(controlOperations({ records, tasks, chats, indexes, tell, now }), { token, newId });
}
