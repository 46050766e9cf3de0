/**
 * Chats of the control surface: what was said so far, and a task of type `chat` for each answer.
 *
 * C1 One answer is waited for at a time. What was said stands in the record before the task is submitted; when nobody could be chosen it is taken back.
 * C2 The answer becomes a turn once; a task that failed or was cancelled leaves the question without one, and the chat goes on.
 */
import { BeamlineError } from "../../../contracts/errors.ts";
import { isObject } from "../policies/fields.ts";
import { uuidOf } from "../intake/uuid.ts";
import type { ControlRequest } from "./door.ts";
import type { Tell } from "./events.ts";
import { neededText, optionalText } from "./inputs.ts";
import type { Chat, Records, Task } from "./records.nats.ts";
import type { Tasks } from "./tasks.ts";

/** Longest text of a turn, characters, and turns a chat may have. */
const MAX_TEXT = 100_000;
const MAX_TURNS = 500;

export interface ChatPorts {
  readonly records: Records;
  readonly tasks: Tasks;
  readonly tell: Tell;
  /** Epoch milliseconds. */
  readonly now: () => number;
}

export class Chats {
  readonly #ports: ChatPorts;

  constructor(ports: ChatPorts) {
    this.#ports = ports;
    ports.tasks.onFinished = (tenant, task) => this.#finished(tenant, task);
  }

  async start(request: ControlRequest, projectId: string): Promise<Chat> {
    const policy_id = optionalText(request.body, "policy_id");
    const system = optionalText(request.body, "system", "system", MAX_TEXT);
    const make = (chat_id: string): Chat => ({
      chat_id,
      ...(projectId !== "" && { project_id: projectId }),
      ...(policy_id !== undefined && { policy_id }),
      turns: system === undefined ? [] : [{ role: "system", content: system }],
      started_at_ms: this.#ports.now(),
    });
    return (await this.#ports.records.make("chat", request, make)).value;
  }

  /** C1. Gives the task that answers. */
  async send(request: ControlRequest): Promise<object> {
    const { records, tasks } = this.#ports;
    const { tenant, body, operation, key } = request;
    const id = neededText(body, "chat_id");
    const content = neededText(body, "text", "text", MAX_TEXT);
    const task_id = uuidOf("control", tenant, operation, key);
    let added = false;
    const chat = await records.change("chat", tenant, id, (one) => {
      added = !one.turns.some((turn) => turn.task_id === task_id);
      if (!added) return one;
      if (one.waiting_for !== undefined)
        throw new BeamlineError("invalid_request", "the chat waits for an answer", { field: "chat_id" });
      if (one.turns.length >= MAX_TURNS)
        throw new BeamlineError("invalid_request", `a chat has at most ${MAX_TURNS} turns`, { field: "chat_id" });
      return { ...one, turns: [...one.turns, { role: "user", content, task_id }], waiting_for: task_id };
    });
    const until = chat.turns.findIndex((turn) => turn.task_id === task_id);
    const messages = chat.turns.slice(0, until + 1).map((turn) => ({ role: turn.role, content: turn.content }));
    const asked = {
      task: { type: "chat", payload: { messages } },
      context: { session_id: id },
      options: {},
      ...(chat.policy_id !== undefined && { policy_id: chat.policy_id }),
    };
    try {
      const { project_id } = chat;
      const task = await tasks.submit(request, asked, { chat_id: id, ...(project_id !== undefined && { project_id }) });
      return { ...task, chat_id: id };
    } catch (thrown) {
      if (added && (await records.find("task", tenant, task_id)) === undefined)
        await records.change("chat", tenant, id, (one) => {
          const { waiting_for, ...rest } = one;
          return waiting_for === task_id
            ? { ...rest, turns: one.turns.filter((turn) => turn.task_id !== task_id) }
            : one;
        });
      throw thrown;
    }
  }

  /** Cancels the answer that is waited for; without one nothing is to be done. */
  async cancel(tenant: string, id: string): Promise<object> {
    const { waiting_for } = await this.#ports.records.get("chat", tenant, id);
    if (waiting_for === undefined) return { chat_id: id, status: "idle" };
    const { status } = (await this.#ports.tasks.cancel(tenant, waiting_for)) as { status: string };
    return { chat_id: id, task_id: waiting_for, status };
  }

  /** C2. */
  async #finished(tenant: string, { task_id, chat_id, status, result }: Task): Promise<void> {
    if (chat_id === undefined) return;
    const { records, tell } = this.#ports;
    const answer = status === "success" ? textOf(result?.["payload"]) : undefined;
    let ended = false;
    await records.change("chat", tenant, chat_id, (chat) => {
      const { waiting_for, ...rest } = chat;
      ended = waiting_for === task_id;
      if (!ended) return chat;
      if (answer === undefined) return rest;
      return { ...rest, turns: [...chat.turns, { role: "assistant", content: answer, task_id }] };
    });
    if (ended)
      tell(tenant, "chat.answered", { chat_id, task_id, status, ...(answer !== undefined && { text: answer }) });
  }
}

/** The words of a provider's answer, whichever form it has. */
function textOf(payload: unknown): string {
  if (typeof payload === "string") return payload;
  if (isObject(payload))
    for (const name of ["text", "content", "output"] as const) {
      const value = payload[name];
      if (typeof value === "string") return value;
    }
  return JSON.stringify(payload ?? "");
}
