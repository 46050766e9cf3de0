/** One stretch of executing a run: from a wake to its end, or to where it can only wait. Rules N2 to N4 of engine.ts. */
import { numberOr, objectOr } from "../../../contracts/openwop/json.ts";
import type { NewEvent, RunEvent } from "../../../contracts/openwop/log.ts";
import { isTerminal, openInterrupt } from "../../../contracts/openwop/snapshot.ts";
import type { NodeState, RunState } from "../../../contracts/openwop/state.ts";
import { BeamlineError } from "../../../contracts/errors.ts";
import { withSpan, type Attributes, type Span } from "../../../runtime/trace.ts";
import type { ActivationPorts } from "./activation.ports.ts";
import { overLimit, refusal, startOf } from "./admission.ts";
import { callOf } from "./call.ts";
import { breach, dueAt, expireInterrupts, limitsOf } from "./due.ts";
import { completion, failure, type Failure } from "./ending.ts";
import { fill } from "./expressions.ts";
import type { Graph, GraphNode } from "./graph.ts";
import { Measures } from "./measures.ts";
import { thrownResult } from "./outcome.ts";
import { type EffectOptions, type NodeCall, type NodeResult, type NodeType } from "./nodetype.ts";
import { isUnsettled, nextMoves } from "./plan.ts";
import { divergence, recordedAnswers } from "./replay.ts";
import { resultEvents } from "./result.ts";
import { RunLost, type Session } from "./session.ts";
import { nodeAttributes } from "./spans.ts";
import { perform, spanned, type Task } from "./task.ts";

const SHORT_WAIT_MS = 2_000;
/** What may be emitted before it is written. */
const MAX_UNWRITTEN = 400;
/** How long chunks of output may wait for company, milliseconds. */
const CHUNK_DELAY_MS = 50;

export class Activation {
  readonly #ports: ActivationPorts;
  readonly #session: Session;
  readonly #graph: Graph;
  readonly #measures: Measures;
  readonly #tasks = new Map<string, Task>();
  readonly #launch: { readonly task: Task; readonly launch: () => void }[] = [];
  readonly #looked = new Set<string>();
  readonly #until = new Map<string, number>();
  #poked = false;
  #attested = 0;
  #wakeUp: (() => void) | undefined;
  #chunkTimer: NodeJS.Timeout | undefined;
  #broken: unknown;
  /** The run goes on in another activation, here or elsewhere: another engine has it (session.ts, S4), or its log could not be written. */
  #lost = false;
  #traceparent = "";
  #span: Span | undefined;
  /** The source's log, for replays. */
  #source: readonly RunEvent[] = [];

  constructor(ports: ActivationPorts, session: Session, graph: Graph) {
    this.#ports = ports;
    this.#session = session;
    this.#graph = graph;
    this.#measures = new Measures(ports.metrics, ports.logger);
  }

  get #state(): RunState {
    return this.#session.state;
  }

  /** Others wrote to the log, or a timer that was due at `due` has fired. */
  poke(due = 0): void {
    this.#attested = Math.max(this.#attested, due);
    this.#poked = true;
    this.#wakeUp?.();
  }

  /** What a timer of the server was set for has come, whatever the clock of this machine has been set to since. */
  #now(): number {
    return Math.max(this.#ports.clock.now(), this.#attested);
  }

  /** Resolves when the run has ended or only waits, and all of that is written. */
  async run(redelivered: boolean, signal: AbortSignal, traceparent: string, span: Span | undefined): Promise<void> {
    this.#traceparent = traceparent;
    this.#span = span;
    const stop = (): void => {
      this.#broken ??= signal.reason;
      this.#wakeUp?.();
    };
    signal.addEventListener("abort", stop, { once: true });
    try {
      if (redelivered && this.#state.status === "running")
        this.#session.emit({ type: "run.resuming", payload: { fromStatus: this.#state.status } });
      const { fork, owner } = this.#state.record;
      if (fork?.mode === "replay") {
        this.#source = await this.#ports.log.events(owner.tenant, fork.sourceRunId);
        // Questions that were open at its cut: those it asks itself are answered as it asks them.
        for (const { nodeId, status } of this.#state.interrupts.values())
          if (status === "pending") this.#recall(nodeId);
      }
      await this.#loop();
    } catch (thrown) {
      // Effects under way are let finish: whoever has the run next is told their outcome by the invocation log.
      this.#lost = thrown instanceof RunLost || (!signal.aborted && isAway(thrown));
      throw thrown;
    } finally {
      signal.removeEventListener("abort", stop);
      clearTimeout(this.#chunkTimer);
      const reason = new BeamlineError("cancelled", "the run was put down");
      if (!this.#lost) for (const task of this.#tasks.values()) task.abort.abort(reason);
    }
  }

  async #loop(): Promise<void> {
    for (;;) {
      if (this.#broken !== undefined) throw this.#broken;
      if (this.#poked) await this.#takeIn();
      if (isTerminal(this.#state)) return this.#session.flush();
      const progressed = await this.#step();
      if (isTerminal(this.#state)) continue;
      if (progressed && this.#session.unwritten < MAX_UNWRITTEN) continue;
      await this.#session.flush();
      // What came in between may have taken a start back.
      this.#dropStale();
      for (const { task, launch } of this.#launch.splice(0)) if (this.#tasks.get(task.nodeId) === task) launch();
      if (progressed || this.#poked || [...this.#tasks.values()].some((task) => task.result !== undefined)) continue;
      const due = this.#nextDue();
      if (this.#tasks.size === 0) {
        const leftMs = due === undefined ? Infinity : due - this.#now();
        if (leftMs <= 0) continue;
        // A short wait is cheaper here than as a timer of the server; the message that woke this run is not done until then (N3).
        if (leftMs <= SHORT_WAIT_MS && this.#ports.shortWaits.enter()) {
          await this.#wait(due).finally(() => this.#ports.shortWaits.leave());
          continue;
        }
        if (due !== undefined) await this.#ports.wakeAt(this.#state, due);
        if (!this.#poked) return;
      } else await this.#wait(due);
    }
  }

  async #takeIn(): Promise<void> {
    this.#poked = false;
    this.#looked.clear();
    await this.#session.sync();
    this.#dropStale();
  }

  /** Ends the tasks of nodes that are not being executed any more. */
  #dropStale(): void {
    for (const task of this.#tasks.values()) {
      const own = this.#state.nodes.get(task.nodeId);
      const stale =
        own === undefined ||
        own.status !== "started" ||
        own.executions !== task.executions ||
        this.#state.status !== "running";
      if (!stale) continue;
      this.#tasks.delete(task.nodeId);
      task.abort.abort(new BeamlineError("cancelled", "the run was cancelled or paused"));
    }
  }

  /** One round: what has come due, what has ended, what can start. Whether anything changed. */
  async #step(): Promise<boolean> {
    const { limits } = this.#ports;
    const before = this.#state.sequence;
    if (this.#state.status !== "running") return false;
    const now = this.#now();
    const overrun = breach(this.#state, limitsOf(this.#state, this.#graph.definition, limits), now);
    if (overrun !== undefined) {
      this.#measures.capped(overrun.event, this.#span);
      this.#failRun({ code: overrun.error.code, message: overrun.error.message, first: [overrun.event] });
      return true;
    }
    const expired = expireInterrupts(this.#state, now);
    for (const event of expired) this.#measures.resolved(this.#state, event, now);
    this.#session.emit(...expired);
    for (const task of this.#tasks.values()) if (task.result !== undefined) this.#settle(task.nodeId, task.result);
    for (const one of this.#graph.nodes) {
      const own = this.#state.nodes.get(one.node.id);
      if (own === undefined) continue;
      if (own.status === "resumed") await this.#resume(one, own);
      else if (own.status === "retrying" && this.#state.pausing === undefined && Date.parse(own.retryAt ?? "") <= now)
        await this.#start(one, own.attempt);
      else if (own.status === "started" && !this.#tasks.has(one.node.id)) await this.#look(one, own, now);
      if (isTerminal(this.#state)) return true;
    }
    if (this.#state.pausing === undefined) await this.#advance();
    else if (![...this.#state.nodes.values()].some(({ status }) => status === "started" || status === "resumed")) {
      const { reason } = this.#state.pausing;
      this.#session.emit({
        type: "run.paused",
        payload: { drainPolicy: "drain-current-node", ...(reason !== undefined && { reason }) },
      });
    }
    return this.#state.sequence > before;
  }

  async #advance(): Promise<void> {
    const moves = nextMoves(this.#graph, this.#state, this.#now());
    if (moves.failed !== undefined) return this.#failRun(moves.failed);
    for (const { node, reason } of moves.skip)
      this.#session.emit({ type: "node.skipped", nodeId: node.node.id, payload: { nodeId: node.node.id, reason } });
    for (const one of moves.start) {
      await this.#start(one, 0, moves.causes.get(one.node.id));
      if (isTerminal(this.#state)) return;
    }
    if (moves.done && openInterrupt(this.#state) === undefined) this.#complete();
  }

  #complete(): void {
    this.#compare();
    this.#session.emit(...completion(this.#graph, this.#state, this.#now()));
  }

  #failRun(end: Failure): void {
    this.#session.emit(...(end.first ?? []));
    this.#compare();
    this.#session.emit(...failure(this.#state, end, this.#now()));
  }

  /** A replay says where it went another way than its source, before it ends. */
  #compare(): void {
    const { fork } = this.#state.record;
    const diverged = fork?.mode === "replay" ? divergence(fork.sourceRunId, this.#source, this.#state) : undefined;
    if (diverged === undefined) return;
    this.#span?.setAttribute("openwop.replay.diverged", true);
    this.#session.emit(diverged);
  }

  /** Starts a node, or the next attempt of it. */
  async #start(one: GraphNode, attempt: number, cause?: string): Promise<void> {
    const { node } = one;
    const type = this.#typeOf(node.typeId);
    const refused = refusal(node, type, this.#ports.capabilities);
    if (refused !== undefined || type === undefined) {
      if (refused !== undefined) this.#session.emit(refused);
      return;
    }
    const limits = limitsOf(this.#state, this.#graph.definition, this.#ports.limits);
    const capped = overLimit(one, attempt, this.#state, limits);
    if (capped !== undefined) {
      for (const event of capped.end.first ?? []) this.#measures.capped(event, this.#span);
      return this.#failRun(capped.end);
    }
    this.#session.emit(startOf(node, attempt, cause));
    const own = this.#state.nodes.get(node.id);
    if (own !== undefined) await this.#execute(one, own, type);
  }

  /** Looks at a node that was started and is not being executed: parked, or left behind by a worker that is gone. */
  async #look(one: GraphNode, own: NodeState, now: number): Promise<void> {
    const type = this.#typeOf(one.node.typeId);
    if (type === undefined) return;
    if (type.mode !== "parked") return this.#execute(one, own, type);
    const until = this.#until.get(one.node.id);
    if (this.#looked.has(one.node.id) && (until === undefined || until > now)) return;
    await this.#execute(one, own, type);
  }

  async #execute(one: GraphNode, own: NodeState, type: NodeType): Promise<void> {
    const abort = new AbortController();
    let call: NodeCall;
    try {
      call = this.#call(one, own, abort.signal);
    } catch (thrown) {
      return this.#settle(one.node.id, thrownResult(thrown));
    }
    if (type.mode === "task") return this.#launchTask(one, own, type, call, abort);
    this.#looked.add(one.node.id);
    let result: NodeResult;
    try {
      const running = spanned(
        call,
        () => nodeAttributes(this.#state.record, own),
        (seen) => type.run(seen),
      );
      if (running instanceof Promise) {
        running.catch(() => undefined); // awaited below
        await this.#session.flush();
        result = await running;
      } else result = running;
    } catch (thrown) {
      if (thrown instanceof BeamlineError && thrown.code === "unavailable") throw thrown;
      result = thrownResult(thrown);
    }
    this.#settle(one.node.id, result);
  }

  #launchTask(one: GraphNode, own: NodeState, type: NodeType, call: NodeCall, abort: AbortController): void {
    const task: Task = { nodeId: one.node.id, executions: own.executions, abort, result: undefined };
    this.#tasks.set(one.node.id, task);
    const attributes = (): Attributes => nodeAttributes(this.#state.record, own);
    // After its start is on the disk.
    const launch = (): void => void perform(task, one, type, call, attributes).then(() => this.#wakeUp?.());
    this.#launch.push({ task, launch });
  }

  async #resume(one: GraphNode, own: NodeState): Promise<void> {
    const type = this.#typeOf(one.node.typeId);
    if (type === undefined) return;
    let result: NodeResult;
    try {
      const call = this.#call(one, own, new AbortController().signal);
      result = type.resume?.(call, own.resumeValue) ?? { kind: "completed", outputs: objectOr(own.resumeValue) };
    } catch (thrown) {
      result = thrownResult(thrown);
    }
    this.#settle(one.node.id, result);
  }

  #call(one: GraphNode, own: NodeState, signal: AbortSignal): NodeCall {
    const tell = (event: NewEvent): void => {
      if (signal.aborted || this.#lost) return;
      this.#session.emit(event);
      this.#chunkTimer ??= setTimeout(() => {
        this.#chunkTimer = undefined;
        this.#session.flush().catch((thrown: unknown) => {
          this.#broken ??= thrown;
          this.#wakeUp?.();
        });
      }, CHUNK_DELAY_MS);
    };
    let ordinal = 0;
    const { record } = this.#state;
    const effect = <T>(options: EffectOptions, make: (id: string) => Promise<T>): Promise<T> => {
      const at = ordinal++;
      const name = `openwop.activity.${options.provider}`;
      return withSpan(
        name,
        this.#traceparent,
        () => nodeAttributes(record, own),
        () => this.#ports.invocations.once(record, one.node.id, at, own.iterations, options, make, signal),
      );
    };
    const call = callOf(this.#state, one.node, own, this.#now(), signal, fill, tell, effect);
    return { ...call, traceparent: this.#traceparent };
  }

  #typeOf(typeId: string): NodeType | undefined {
    return this.#ports.nodeTypes.get(typeId) ?? this.#ports.customType(typeId);
  }

  #settle(nodeId: string, result: NodeResult): void {
    this.#tasks.delete(nodeId);
    const own = this.#state.nodes.get(nodeId);
    const node = this.#graph.byId.get(nodeId)?.node;
    if (own === undefined || node === undefined || !isUnsettled(own)) return;
    if (result.kind === "waits") {
      if (result.until === undefined) this.#until.delete(nodeId);
      else this.#until.set(nodeId, result.until);
    } else {
      this.#looked.delete(nodeId);
      this.#until.delete(nodeId);
    }
    const maxRetries = numberOr(node.settings?.["maxRetries"], numberOr(this.#graph.definition.settings.maxRetries, 0));
    const backoffMs = numberOr(node.settings?.["retryDelayMs"], 500);
    const now = this.#now();
    const rules = { maxRetries, backoffMs, now, id: () => this.#ports.ids.v7() };
    const events = resultEvents(this.#state, own, result, rules);
    this.#measures.told(this.#state, own, events, now);
    this.#session.emit(...events);
    if (result.kind === "asks") this.#recall(nodeId);
  }

  /** In a replay: answers a node's question as the source was answered. */
  #recall(nodeId: string): void {
    const own = this.#state.nodes.get(nodeId);
    const fromSeq = this.#state.record.fork?.fromSeq ?? 0;
    const answers = own === undefined ? [] : recordedAnswers(this.#source, own, fromSeq);
    for (const event of answers) this.#measures.resolved(this.#state, event, this.#now());
    this.#session.emit(...answers);
  }

  /** When the run has to be looked at again, if it has. */
  #nextDue(): number | undefined {
    const limits = limitsOf(this.#state, this.#graph.definition, this.#ports.limits);
    return dueAt(this.#state, limits, this.#until.values());
  }

  async #wait(due: number | undefined): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    await new Promise<void>((resolve) => {
      this.#wakeUp = resolve;
      if (due !== undefined) timer = setTimeout(resolve, Math.min(Math.max(1, due - this.#now()), 2 ** 31 - 1));
      if (
        this.#poked ||
        this.#broken !== undefined ||
        [...this.#tasks.values()].some((task) => task.result !== undefined)
      )
        resolve();
    });
    clearTimeout(timer);
    this.#wakeUp = undefined;
  }
}

/** Whether the bus did not take or give something, and may soon. */
function isAway(thrown: unknown): boolean {
  return thrown instanceof BeamlineError && (thrown.code === "unavailable" || thrown.code === "deadline_exceeded");
}
