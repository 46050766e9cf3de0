/**
 * The engine: takes a run as far as it goes.
 *
 * N1 A run is executed by one worker at a time, as far as hot state can tell (lease); the log's compare-and-set and the invocation log make
 *    sure where it cannot.
 * N2 What computes at once is not written one by one: events wait for the next thing that takes time, or the end.
 * N3 A message is done when everything it led to is on the disk, the next timer included. A worker that dies before leaves it to another,
 *    which starts interrupted nodes from their beginning.
 * N4 What others write meanwhile (answers, cancel, pause) is taken in at the next step, and at once when they poke.
 */
import type { LogEntry, Parent } from "../../../contracts/openwop/log.ts";
import { isTerminal } from "../../../contracts/openwop/snapshot.ts";
import { BeamlineError } from "../../../contracts/errors.ts";
import type { Clock } from "../../../runtime/clock.ts";
import type { Logger } from "../../../runtime/log.ts";
import { SpanKind, withSpan } from "../../../runtime/trace.ts";
import type { ActivationPorts } from "./activation.ports.ts";
import { Activation } from "./activation.ts";
import type { Definitions } from "../definitions.ts";
import type { Lease } from "./lease.redis.ts";
import { ended } from "./ended.ts";
import type { RunLog } from "../log.ts";
import { Session } from "./session.ts";
import { costAttributes, runAttributes } from "./spans.ts";

/** Something that gives a run work. */
export interface Wake {
  readonly tenant: string;
  readonly runId: string;
  /** The message, when it is one of the run's log. */
  readonly entry?: LogEntry;
  readonly streamSeq: number;
  /** What a timer was set for, epoch milliseconds; 0 when it is none. */
  readonly due: number;
  /** Whether another worker had it before. */
  readonly redelivered: boolean;
  readonly signal: AbortSignal;
}

export interface EnginePorts extends ActivationPorts {
  readonly log: RunLog;
  readonly definitions: Definitions;
  readonly lease: Lease;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Cancels the children of a run that ended; again and again until it has worked. */
  cancelChildren(tenant: string, runId: string): Promise<void>;
}

interface Active {
  activation: Activation | undefined;
  /** Something arrived since the activation last looked. */
  again: boolean;
  done: Promise<void>;
}

export class Engine {
  readonly #ports: EnginePorts;
  readonly #active = new Map<string, Active>();
  readonly #held = new Map<string, number>();

  constructor(ports: EnginePorts) {
    this.#ports = ports;
  }

  /** Runs held by this worker, by tenant; tenants that had some stay, with none. */
  get active(): ReadonlyMap<string, number> {
    return this.#held;
  }

  /** Others wrote to a run's log: whoever executes it should look (N4). */
  poke(tenant: string, runId: string): void {
    const active = this.#active.get(`${tenant}\0${runId}`);
    if (active === undefined) return;
    active.again = true;
    active.activation?.poke();
  }

  /** Resolves when everything the message led to is on the disk (N3). Throws `unavailable` while another worker holds the run. */
  async wake(wake: Wake): Promise<void> {
    const key = `${wake.tenant}\0${wake.runId}`;
    const active = this.#active.get(key);
    if (active !== undefined) {
      active.again = true;
      active.activation?.poke(wake.due);
      return active.done;
    }
    const mine: Active = { activation: undefined, again: false, done: Promise.resolve() };
    this.#active.set(key, mine);
    this.#held.set(wake.tenant, (this.#held.get(wake.tenant) ?? 0) + 1);
    mine.done = this.#rounds(wake, mine, key);
    return mine.done;
  }

  /** What arrives while the lease is given back starts another round: between the last look and the end nothing can arrive. */
  async #rounds(wake: Wake, mine: Active, key: string): Promise<void> {
    try {
      let next = wake;
      do {
        mine.again = false;
        await this.#hold(next, mine);
        const { entry: _entry, ...rest } = wake;
        next = { ...rest, redelivered: false };
      } while (mine.again);
    } finally {
      this.#active.delete(key);
      this.#held.set(wake.tenant, (this.#held.get(wake.tenant) ?? 1) - 1);
    }
  }

  async #hold(wake: Wake, mine: Active): Promise<void> {
    const { lease } = this.#ports;
    const { tenant, runId } = wake;
    if (!(await lease.take(tenant, runId))) {
      lease.pokeOwner(tenant, runId);
      this.#ports.metrics.conflict(tenant);
      this.#ports.logger.debug("a run is held by another worker", {
        metricKind: "openwop.run.claim.conflict",
        run_id: runId,
        tenant_id: tenant,
      });
      throw new BeamlineError("unavailable", `run ${runId} is held by another worker`);
    }
    try {
      await this.#once(wake, mine);
    } finally {
      await lease.release(tenant, runId);
    }
  }

  async #once(wake: Wake, mine: Active): Promise<void> {
    const { log, definitions } = this.#ports;
    const session = await Session.open(
      log,
      wake.tenant,
      wake.runId,
      wake.entry === undefined ? undefined : { entry: wake.entry, streamSeq: wake.streamSeq },
    );
    if (session === undefined) return;
    if (!isTerminal(session.state)) {
      const graph = await definitions.graph(session.state.record.definition);
      mine.activation = new Activation(this.#ports, session, graph);
      try {
        const { record, startedAt, nodes } = session.state;
        if (nodes.size === 0)
          this.#ports.metrics.backlog(
            session.state,
            Math.max(0, this.#ports.clock.now() - Date.parse(startedAt)) / 1_000,
          );
        const activation = mine.activation;
        if (wake.due > 0) activation.poke(wake.due);
        await withSpan(
          "openwop.run",
          record.traceparent,
          () => runAttributes(record, graph.definition),
          async (onward, span) => {
            if (span !== undefined) session.recordedUnder(onward);
            await activation.run(wake.redelivered, wake.signal, onward, span);
            span?.setAttributes(costAttributes(session.state));
          },
          SpanKind.INTERNAL,
          record.sourceSpan === undefined ? {} : { links: [record.sourceSpan] },
        );
        // Who cancelled it has said so.
        if (isTerminal(session.state) && session.state.status !== "cancelled") ended(this.#ports, session.state);
      } finally {
        mine.activation = undefined;
      }
    }
    log.keep(wake.tenant, wake.runId, session.held);
    if (isTerminal(session.state)) await this.#ended(session, wake);
  }

  /** What an end leads to. Everything here may happen twice. */
  async #ended(session: Session, { tenant, runId }: Wake): Promise<void> {
    const { log } = this.#ports;
    const { state } = session;
    if (
      [...state.children.values()].some(
        ({ status }) => status !== "completed" && status !== "failed" && status !== "cancelled",
      )
    )
      await this.#ports.cancelChildren(tenant, runId);
    const parent: Parent | undefined = state.record.parent;
    if (parent !== undefined) await log.nudge(tenant, parent.runId);
    for (const watcher of state.watchers) await log.nudge(tenant, watcher);
  }
}
