/** `beamline exec`: publish, watch, inspect and cancel assignments, and see who does them. */
import type { Command } from "commander";
import type { Bus } from "../bus/connect.ts";
import { publish } from "../bus/publish.ts";
import { BeamlineError } from "../contracts/errors.ts";
import { assignmentOf } from "../contracts/execution/assignment.ts";
import { readHeartbeat } from "../contracts/execution/heartbeat.ts";
import { execSubject } from "../contracts/execution/subjects.ts";
import { newTraceparent } from "../runtime/trace.ts";
import { systemIds } from "../runtime/ids.ts";
import { stackContext, wholeNumber, type CommandContext } from "./exec.context.ts";
import { followExec, historyOf, rowOf, type ExecEvent } from "./exec.log.ts";

interface PublishOptions {
  readonly tenant: string;
  readonly provider: string;
  readonly deadline: number;
  readonly attempts: number;
  readonly wait: boolean;
  readonly subject: string;
}

/** Adds `exec` with its subcommands. */
export function execCommand(program: Command, context: CommandContext = stackContext): void {
  const exec = program.command("exec").description("Publish, watch, inspect and cancel assignments.");

  exec
    .command("publish")
    .description("Publish an assignment as the router does, and wait for its result.")
    .argument("<type>", "job type, such as echo, sleep, http, chat")
    .argument("[payload]", "input of the job, JSON or text", "{}")
    .option("-t, --tenant <id>", "tenant the job belongs to", "default")
    .option("-p, --provider <id>", "provider that executes it", "demo")
    .option("--deadline <ms>", "time allowed for all attempts", wholeNumber("--deadline", 1), 5_000)
    .option("--attempts <n>", "attempts, the first one included", wholeNumber("--attempts", 1), 2)
    .option("--subject <subject>", "where it goes; BEAMLINE_EXEC_SUBJECTS names further ones", execSubject.assign)
    .option("--no-wait", "print the assignment's id and leave")
    .action(async (type: string, payload: string, options: PublishOptions, command: Command) => {
      const out = context.out(command);
      await using stack = await context.connect();
      const assignment = build(type, payload, options);
      const found = options.wait ? await resultOf(stack.bus, assignment.assignmentId, options) : undefined;
      await stack.bus.flush();
      await publish(stack.bus, assignment.subject, assignment.body, {
        msgId: assignment.msgId,
        headers: assignment.headers,
      });
      if (found === undefined)
        return out.record({ assignment_id: assignment.assignmentId, subject: assignment.subject });
      const result = await found.result;
      if (result === undefined)
        throw new BeamlineError(
          "deadline_exceeded",
          `no result of ${assignment.assignmentId} within its deadline; is an execution worker running?`,
        );
      out.record(result.body);
    });

  exec
    .command("watch")
    .description("Show assignments, acknowledgements and results as they come.")
    .option("-t, --tenant <id>", "of this tenant only")
    .option("--id <assignment>", "of this assignment only")
    .option("--count <n>", "end after so many", wholeNumber("--count", 1))
    .action(async (options: { tenant?: string; id?: string; count?: number }, command: Command) => {
      const out = context.out(command);
      await using stack = await context.connect();
      const done = Promise.withResolvers<void>();
      let left = options.count ?? Infinity;
      const stop = await followExec(stack.bus, (event) => {
        if (options.id !== undefined && event.body["assignment_id"] !== options.id) return;
        if (options.tenant !== undefined && event.tenant !== options.tenant) return;
        if (left-- <= 0) return;
        if (out.json) process.stdout.write(`${JSON.stringify({ subject: event.subject, ...event.body })}\n`);
        else out.line(Object.values(rowOf(event)).join("  "));
        if (left <= 0) done.resolve();
      });
      process.once("SIGINT", () => done.resolve());
      await done.promise;
      stop();
    });

  exec
    .command("show")
    .description("Everything the stream knows about one assignment.")
    .argument("<assignment>", "assignment id")
    .action(async (id: string, _options: unknown, command: Command) => {
      const out = context.out(command);
      await using stack = await context.connect();
      const events = await historyOf(stack.bus, id);
      if (out.json)
        return out.record({
          assignment_id: id,
          events: events.map(({ subject, at, body }) => ({ subject, at: new Date(at).toISOString(), ...body })),
        });
      out.table(events.map(rowOf), "nothing is known of this assignment");
    });

  exec
    .command("cancel")
    .description("Stop an assignment, whether it runs or waits.")
    .argument("<assignment>", "assignment id")
    .requiredOption("-t, --tenant <id>", "tenant it belongs to")
    .option("--reason <text>", "why", "")
    .action(async (assignment_id: string, { tenant, reason }: { tenant: string; reason: string }, command: Command) => {
      const out = context.out(command);
      await using stack = await context.connect();
      const request = { assignment_id, tenant_id: tenant, reason };
      out.record(
        (await stack.caller.request(execSubject.cancel, request, { timeoutMs: 5_000, worker: "usage" })) as Record<
          string,
          unknown
        >,
      );
    });

  exec
    .command("workers")
    .description("Execution workers that give signs of life.")
    .option("--for <ms>", "how long to listen", wholeNumber("--for", 1), 6_000)
    .action(async (options: { for: number }, command: Command) => {
      const out = context.out(command);
      await using stack = await context.connect();
      out.table(await workersOf(stack.bus, options.for), "no execution worker was heard");
    });
}

function build(type: string, payload: string, { tenant, provider, deadline, attempts, subject }: PublishOptions) {
  const traceparent = newTraceparent();
  const request = {
    form: "extended" as const,
    tenant,
    traceId: "",
    requestId: systemIds.v4(),
    messageType: type,
    runId: "",
    assignmentSubject: subject,
    body: {
      task: { type, payload },
      options: { deadline_ms: deadline, retry: { max_attempts: attempts, backoff_ms: 200 } },
    },
  };
  const decision = {
    provider_id: provider,
    reason: "policy",
    priority: 50,
    expected_latency_ms: 0,
    expected_cost: 0,
    metadata: {},
  };
  return assignmentOf(request, decision, { assignmentId: systemIds.v4(), traceparent });
}

/** Listening when it resolves; the result is undefined when nothing came in the time all attempts may take. */
async function resultOf(
  bus: Bus,
  id: string,
  { deadline, attempts }: PublishOptions,
): Promise<{ readonly result: Promise<ExecEvent | undefined> }> {
  const { promise, resolve } = Promise.withResolvers<ExecEvent | undefined>();
  const timer = setTimeout(() => resolve(undefined), (deadline + 3_000) * attempts + 5_000);
  const stop = await followExec(bus, (event) => {
    if (event.subject === execSubject.result && event.body["assignment_id"] === id) resolve(event);
  });
  const result = promise.finally(() => {
    clearTimeout(timer);
    stop();
  });
  return { result };
}

async function workersOf(bus: Bus, forMs: number): Promise<Record<string, unknown>[]> {
  const heard = new Map<string, Record<string, unknown>>();
  const subscriptions = [execSubject.heartbeat, execSubject.rustHeartbeat].map((subject) =>
    bus.subscribe(subject, ({ data }) => {
      try {
        const { worker_id, status, resources, timestamp } = readHeartbeat(data);
        heard.set(worker_id, { worker_id, status, ...resources, timestamp });
      } catch {
        // Not a heartbeat.
      }
    }),
  );
  await new Promise<void>((resolve) => setTimeout(resolve, forMs));
  for (const subscription of subscriptions) subscription.unsubscribe();
  return [...heard.values()];
}
