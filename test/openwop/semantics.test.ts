/** What a workflow says is what happens: triggers, channels and reducers, loops and their limits (OpenWOP, workflow definitions; channels). */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { RunEvent } from "../../contracts/openwop/log.ts";
import type { Channel, WorkflowDefinition, WorkflowNode } from "../../contracts/openwop/workflow.ts";
import { startHost, type Got, type Host } from "./host.ts";
import { edge, node, workflow, type Parts } from "./workflow.kit.ts";

let host: Host;
beforeAll(async () => {
  host = await startHost();
}, 60_000);
afterAll(async () => host[Symbol.asyncDispose]());

const apply = (definition: WorkflowDefinition): Promise<Got> =>
  host.rest("PUT", `/v1/workflows/${definition.id}`, definition);

/** Registers, runs, waits for the end. */
async function ran(
  definition: WorkflowDefinition,
  status = "completed",
  more: object = {},
): Promise<{ run: Got["body"]; events: RunEvent[] }> {
  const { body } = await apply(definition);
  expect(body.digest, JSON.stringify(body)).toEqual(expect.any(String));
  const runId = await host.start(definition.id, more);
  const run = await host.reaches(runId, status);
  return { run, events: await host.events(runId) };
}

/** Where a refusal says it is. */
async function fieldOf(definition: WorkflowDefinition): Promise<string> {
  const { status, body } = await apply(definition);
  expect([status, body.error]).toEqual([400, "validation_error"]);
  return body.details.field;
}

const write = (id: string, value: unknown, config: object = {}): WorkflowNode =>
  node(id, "core.channelWrite", { channelName: "news", value, ...config });

describe("the channel-write trigger", () => {
  const watched = (config: object, parts: Parts = {}): WorkflowDefinition =>
    workflow("watched", [write("one", 1), write("two", 2), node("react"), node("after")], {
      edges: ["one>two", "react>after"],
      channels: { news: { reducer: "append" } },
      triggers: [{ id: "t", type: "channel-write", nodeId: "react", config: { channel: "news", ...config } }],
      ...parts,
    });
  const startsOf = (events: readonly RunEvent[], id: string): RunEvent[] =>
    events.filter(({ type, nodeId }) => type === "node.started" && nodeId === id);

  test("starts its node for each write, caused by it; what follows the node follows", async () => {
    const { events, run } = await ran(watched({}));
    const writes = events.filter(({ type }) => type === "channel.written").map(({ eventId }) => eventId);
    expect(startsOf(events, "react").map(({ causationId }) => causationId)).toEqual(writes);
    expect(run.nodeStates.after.status).toBe("completed");
  });

  test("with a debounce once, after the channel has been quiet", async () => {
    const { events } = await ran(watched({ debounceMs: 300 }));
    const last = events.findLast(({ type }) => type === "channel.written");
    const [first, ...more] = startsOf(events, "react");
    expect([first?.causationId, more.length]).toEqual([last?.eventId, 0]);
    expect(Date.parse(first?.timestamp ?? "") - Date.parse(last?.timestamp ?? "")).toBeGreaterThanOrEqual(300);
  });

  test("not for writes of its own node, not when it is switched off, and not without a write", async () => {
    const own = workflow("own", [write("first", 0), write("react", 1)], {
      triggers: [{ id: "t", type: "channel-write", nodeId: "react", config: { channel: "news" } }],
    });
    expect(startsOf((await ran(own)).events, "react")).toHaveLength(1);
    const off = { id: "t", type: "channel-write", nodeId: "react", enabled: false, config: { channel: "news" } };
    const { events } = await ran(watched({}, { triggers: [off] }));
    expect(startsOf(events, "react").map(({ causationId }) => causationId)).toEqual([undefined]);
    const silent = workflow("silent", [node("a"), node("react")], {
      channels: { news: { reducer: "append" } },
      triggers: [{ id: "t", type: "channel-write", nodeId: "react", config: { channel: "news" } }],
    });
    expect(Object.keys((await ran(silent)).run.nodeStates)).toEqual(["a"]);
  });

  test("is refused, with its path, when it can never fire", async () => {
    expect(await fieldOf(watched({ channel: "nothing" }))).toBe("triggers[0].config.channel");
    expect(await fieldOf(watched({ onlyFrom: "child" }))).toBe("triggers[0].config.onlyFrom");
    expect(await fieldOf(watched({ debounceMs: 60_001 }))).toBe("triggers[0].config.debounceMs");
    const nowhere = { id: "t", type: "channel-write", nodeId: "nobody", config: { channel: "news" } };
    expect(await fieldOf(watched({}, { triggers: [nowhere] }))).toBe("triggers[0].nodeId");
  });
});

describe("channels", () => {
  const writing = (channel: Channel, ...nodes: readonly WorkflowNode[]): WorkflowDefinition =>
    workflow("writing", nodes, {
      edges: nodes.slice(1).map(({ id }, at) => `${nodes[at]?.id ?? ""}>${id}`),
      channels: { news: channel },
    });
  const errorOf = async (channel: Channel, ...nodes: readonly WorkflowNode[]): Promise<string> =>
    (await ran(writing(channel, ...nodes), "failed")).run.error.code;

  test.each<[Channel, unknown[], unknown]>([
    [{ reducer: "replace" }, [1, 2], 2],
    [{ reducer: "append", maxSize: 2 }, [1, 2, 3], [2, 3]],
    [{ reducer: "append", default: [0] }, [1], [0, 1]],
    [{ reducer: "merge" }, [{ a: 1, b: 1 }, { b: 2 }], { a: 1, b: 2 }],
    [{ reducer: "counter" }, [2, -1], 1],
    [
      { reducer: "votes" },
      [
        { userId: "a", vote: 1 },
        { userId: "b", vote: 1 },
        { userId: "a", vote: 2 },
      ],
      [
        { userId: "b", vote: 1 },
        { userId: "a", vote: 2 },
      ],
    ],
    [
      { reducer: "message" },
      [
        { messageId: "1", text: "x" },
        { messageId: "1", text: "y" },
      ],
      [{ messageId: "1", text: "x" }],
    ],
  ])("%j takes %j to what it should", async (channel, values, expected) => {
    const { run, events } = await ran(writing(channel, ...values.map((value, at) => write(`w${at}`, value))));
    expect([run.channels.news, run.variables.news]).toEqual([expected, expected]);
    const written = events.filter(({ type }) => type === "channel.written").map(({ payload }) => payload);
    expect(written).toMatchObject(values.map((value) => ({ channel: "news", value, reducer: channel.reducer })));
  });

  test("feedback is numbered and dated", async () => {
    const { run } = await ran(writing({ reducer: "feedback" }, write("a", "good"), write("b", { feedback: "better" })));
    expect(run.channels.news).toEqual([
      { feedback: "good", timestamp: expect.any(String), iteration: 0 },
      { feedback: "better", timestamp: expect.any(String), iteration: 1 },
    ]);
  });

  test("what a reducer cannot take is refused, and so is what does not fit", async () => {
    expect(await errorOf({ reducer: "counter" }, write("w", "many"))).toBe("validation_error");
    expect(await errorOf({ reducer: "merge" }, write("w", [1]))).toBe("validation_error");
    expect(await errorOf({ reducer: "votes" }, write("w", { vote: 1 }))).toBe("validation_error");
    expect(await errorOf({ reducer: "replace", maxSize: 1 }, write("w", [1, 2]))).toBe("validation_error");
    const [one, two] = [write("w1", { messageId: "1" }), write("w2", { messageId: "2" })];
    expect(await errorOf({ reducer: "message", maxSize: 1 }, one, two)).toBe("validation_error");
    expect(
      await errorOf({ reducer: "append", schema: { type: "array", items: { type: "number" } } }, write("w", "x")),
    ).toBe("validation_error");
  });

  test("who may write and read is said by node and by type", async () => {
    const denied = "channel_access_denied";
    expect(await errorOf({ reducer: "append", access: "private" }, write("w", 1))).toBe(denied);
    expect(await errorOf({ reducer: "append", access: { writers: ["other"] } }, write("w", 1))).toBe(denied);
    const inputs = { payload: { type: "variable", variableName: "news" } } as const;
    const reader = node("r", "core.identity", {}, { inputs });
    expect(await errorOf({ reducer: "append", access: { readers: ["w"] } }, write("w", 1), reader)).toBe(denied);
    const open = { writers: ["core.*"], readers: ["r"] };
    await ran(writing({ reducer: "append", access: open }, write("w", 1), reader));
  });

  test("older writes are read when the channel says so and they conform; newer ones are taken as they are", async () => {
    const breaking = "channel_schema_breaking_change";
    const channel: Channel = {
      reducer: "append",
      schemaVersion: 3,
      compatibleWith: [2],
      schema: { type: "array", items: { type: "number" } },
    };
    expect(await errorOf(channel, write("w", 1, { schemaVersion: 1 }))).toBe(breaking);
    expect(await errorOf(channel, write("w", "x", { schemaVersion: 2 }))).toBe(breaking);
    const good = writing(channel, write("old", 1, { schemaVersion: 2 }), write("new", "x", { schemaVersion: 4 }));
    const { events } = await ran(good);
    const written = events.filter(({ type }) => type === "channel.written");
    expect(written.map(({ payload }) => (payload as { schemaVersion: number }).schemaVersion)).toEqual([2, 4]);
  });

  test("a reducer nobody knows, a default that does not conform: refused with the path", async () => {
    expect(await fieldOf(writing({ reducer: "vendor.acme.sum" }, node("a")))).toBe("channels.news.reducer");
    const strange = { reducer: "append", schema: { type: "array" }, default: 7 };
    expect(await fieldOf(writing(strange, node("a")))).toBe("channels.news.default");
  });
});

describe("loops and limits", () => {
  const back = (settings: WorkflowDefinition["settings"], times: number): WorkflowDefinition =>
    workflow("back", [node("count", "core.channelWrite", { channelName: "turns", value: 1 }), node("check")], {
      channels: { turns: { reducer: "counter" } },
      edges: ["count>check", edge("check>count", { type: "expression", expression: `variables.turns < ${times}` })],
      settings,
    });

  test("an edge may lead back five times unless the workflow says otherwise; then the log says why it ended", async () => {
    expect((await ran(back({}, 6))).run.variables.turns).toBe(6);
    const { run, events } = await ran(back({}, 7), "failed");
    expect(run.error.code).toBe("loop_limit_exceeded");
    expect(events.slice(-3).map(({ type, payload }) => [type, payload])).toMatchObject([
      ["workflow.loopback-limit", { nodeId: "count", iterations: 6, limit: 5 }],
      ["cap.breached", { kind: "loop-iterations", limit: 5, observed: 6, nodeId: "count" }],
      ["run.failed", {}],
    ]);
    expect((await ran(back({ maxLoopbackIterations: 9 }, 10))).run.variables.turns).toBe(10);
  });

  test("core.loop goes round as often as it says, and no more often than the run may", async () => {
    const loop = workflow("loop", [node("head", "core.loop", { times: 3 }), node("body"), node("after")], {
      edges: [
        edge("head>body", { type: "equals", left: "output.continue", right: true }),
        "body>head",
        edge("head>after", { type: "equals", left: "output.continue", right: false }),
      ],
    });
    const { events, run } = await ran(loop);
    const of = (id: string): number =>
      events.filter(({ type, nodeId }) => type === "node.completed" && nodeId === id).length;
    expect([of("head"), of("body"), run.nodeStates.after.status]).toEqual([4, 3, "completed"]);
    const capped = await ran(loop, "failed", { configurable: { maxLoopIterations: 2 } });
    expect(capped.run.error.code).toBe("loop_limit_exceeded");
    expect(capped.events.at(-2)?.payload).toMatchObject({ kind: "loop-iterations", limit: 2, observed: 3 });
  });

  test("a dispatch has a cap of its own, and refuses what this host does not route", async () => {
    const decisions = Array.from({ length: 3 }, () => ({
      kind: "next-worker",
      nextWorkerIds: ["conformance-noop"],
    }));
    const dispatching = (config: WorkflowNode["config"]): WorkflowDefinition =>
      workflow(
        "dispatching",
        [node("lead", "core.orchestrator.supervisor", { decisions }), node("go", "core.dispatch", config)],
        { edges: ["lead>go", "go>lead"] },
      );
    const { run, events } = await ran(dispatching({ iterationCap: 2 }), "failed");
    expect(run.error.code).toBe("loop_limit_exceeded");
    expect(events.at(-2)?.payload).toMatchObject({ kind: "dispatch-iterations", limit: 2, observed: 3, nodeId: "go" });
    expect(await fieldOf(dispatching({ askUserRouting: "conversation" }))).toBe("nodes[1].config.askUserRouting");
    expect(await fieldOf(dispatching({ iterationCap: 0 }))).toBe("nodes[1].config.iterationCap");
  });

  test("a hundred children of one run all end", { timeout: 60_000 }, async () => {
    const child = { workflowId: "conformance-noop" };
    const many = Array.from({ length: 100 }, (_, at) => node(`c${at}`, "core.subWorkflow", child));
    const { run } = await ran(workflow("many", many));
    const statuses = run.childRuns.map(({ status }: { status: string }) => status);
    expect([statuses.length, new Set(statuses)]).toEqual([100, new Set(["completed"])]);
  });
});

test("a conversation's question says what it waits for, and its answer must conform", async () => {
  const data = { conversationId: "c", outcomeSchema: { type: "object", required: ["text"] } };
  await apply(workflow("talk", [node("ask", "core.interrupt", { kind: "conversation.exchange", data })]));
  const runId = await host.start("talk");
  await host.reaches(runId, "waiting-approval");
  const suspended = (await host.events(runId)).find(({ type }) => type === "node.suspended");
  expect(suspended?.payload).toMatchObject({ kind: "conversation.exchange", reason: "conversation-input" });
  const answer = (resumeValue: object): Promise<Got> =>
    host.rest("POST", `/v1/runs/${runId}/interrupts/ask`, { resumeValue });
  expect((await answer({})).body.error).toBe("validation_error");
  expect((await answer({ text: "fine" })).status).toBe(200);
  await host.reaches(runId, "completed");
});

test("run options are surfaced unmodified, kept, and never executed; tags and metadata are not seen by nodes", async () => {
  const config = { expression: "size(variables) + size(inputs)" };
  const definition = workflow("options", [node("sum", "core.transform", config)]);
  const options = {
    configurable: { "acme.mood": { deep: [1, "x"] } },
    tags: ["ü", "x".repeat(256)],
    metadata: { a: 1 },
  };
  const { run, events } = await ran(definition, "completed", options);
  expect(run).toMatchObject(options);
  expect(events[0]?.payload).toMatchObject({ tags: options.tags, metadata: options.metadata });
  expect(events.find(({ type }) => type === "node.completed")?.payload).toMatchObject({ outputs: { result: 0 } });
  for (const [configurable, field] of [
    [{ temperature: 2.1 }, "configurable.temperature"],
    [{ maxTokens: 0 }, "configurable.maxTokens"],
    [{ escalationThreshold: -0.1 }, "configurable.escalationThreshold"],
    [{ reasoningVerbosity: "loud" }, "configurable.reasoningVerbosity"],
    [{ runTimeoutMs: 1.5 }, "configurable.runTimeoutMs"],
    [{ maxLoopIterations: 0 }, "configurable.maxLoopIterations"],
    [{ promptOverrides: { a: 1 } }, "configurable.promptOverrides"],
    [{ "ai.secret": "x" }, "configurable.ai.secret"],
  ] as const) {
    const { body } = await host.rest("POST", "/v1/runs", { workflowId: "options", configurable });
    expect([body.error, body.details?.field]).toEqual(["validation_error", field]);
  }
});

test("a condition or an expression that cannot be computed ends the run and says which; one that cannot be read is refused with its path", async () => {
  const condition = { type: "expression", expression: "output.score > 5" } as const;
  const nodes = [node("a"), node("b")];
  const parts = { edges: [edge("a>b", condition)] };
  const { run, events } = await ran(workflow("uncomputable", nodes, parts), "failed");
  expect(run.error.code).toBe("validation_error");
  expect(run.error.message).toContain('edge a>b: condition.expression "output.score > 5" cannot be computed');
  expect(run.error.details).toMatchObject({ edgeId: "a>b" });
  expect(events.map(({ type }) => type)).toEqual(["run.started", "node.started", "node.completed", "run.failed"]);
  const stuck = { type: "regex", left: "inputs.text", right: "(a|a)*$" } as const;
  const inputs = { text: `${"a".repeat(64)}!` };
  const slow = await ran(workflow("slow", nodes, { edges: [edge("a>b", stuck)] }), "failed", { inputs });
  expect(slow.run.error.message).toBe("edge a>b: condition.right takes longer than 1000 ms");
  for (const [typeId, config, field] of [
    ["core.transform", { expression: "1 +" }, "nodes[0].config.expression"],
    ["core.loop", { while: "turn <" }, "nodes[0].config.while"],
    ["core.conditional", { expression: "(" }, "nodes[0].config.expression"],
    ["core.conditional", { condition: { type: "regex", right: "(" } }, "nodes[0].config.condition.right"],
    ["core.interrupt", { resumeSchema: { type: "nothing" } }, "nodes[0].config.resumeSchema"],
    [
      "core.clarificationGate",
      { questions: [{ id: "q", question: "?", schema: { pattern: "(" } }] },
      "nodes[0].config.questions[0].schema",
    ],
  ] as const)
    expect(await fieldOf(workflow("unreadable", [node("a", typeId, config)]))).toBe(field);
});

describe("gates", () => {
  test.each<[Record<string, unknown>, string]>([
    [{ requiredApprovals: "2" }, "requiredApprovals"],
    [{ requiredApprovals: 0 }, "requiredApprovals"],
    [{ requiredApprovals: 3, approversList: ["ann", "bob"] }, "approversList"],
    [{ approversList: "bob" }, "approversList"],
    [{ rejectionPolicy: "majorty" }, "rejectionPolicy"],
    [{ actions: ["ask"] }, "actions"],
    [{ timeoutMs: "1000" }, "timeoutMs"],
    [{ timeoutMs: -1 }, "timeoutMs"],
  ])("%j is refused with its path: it would let through what it should hold back", async (config, member) => {
    expect(await fieldOf(workflow("lax", [node("gate", "core.approvalGate", config)]))).toBe(
      `nodes[0].config.${member}`,
    );
    const asked = node("gate", "core.interrupt", { kind: "approval", data: config });
    expect(await fieldOf(workflow("lax", [asked]))).toBe(`nodes[0].config.data.${member}`);
  });

  test("what a template fills in is checked when it is there; approvers this host cannot look up are a capability", async () => {
    const late = node("gate", "core.approvalGate", { requiredApprovals: "{{inputs.votes}}" });
    const { run } = await ran(workflow("late", [late]), "failed", { inputs: { votes: "2" } });
    expect(run.error).toMatchObject({
      code: "validation_error",
      message: expect.stringContaining("config.requiredApprovals must be"),
    });
    const { body } = await apply(workflow("routed", [node("gate", "core.approvalGate", { requiredRole: "boss" })]));
    expect([body.error, body.details.field]).toEqual(["capability_required", "nodes[0].config.requiredRole"]);
  });

  test("a delay that is no number is refused, at once where it stands and later where it is filled in", async () => {
    expect(await fieldOf(workflow("lazy", [node("wait", "core.delay", { ms: "2000" })]))).toBe("nodes[0].config.ms");
    const late = workflow("lazy", [node("wait", "core.delay", { ms: "{{inputs.ms}}" })]);
    const { run } = await ran(late, "failed", { inputs: { ms: "2 s" } });
    expect(run.error).toMatchObject({
      code: "validation_error",
      message: "config.ms must be a number of milliseconds",
    });
    await ran(late, "completed", { inputs: { ms: 1 } });
  });

  test("a deadline or a delay beyond all clocks never comes, and is none to be afraid of", async () => {
    const runs: string[] = [];
    for (const ms of [Number.MAX_SAFE_INTEGER, 1e13, 1e18]) {
      for (const one of [node("gate", "core.approvalGate", { timeoutMs: ms }), node("gate", "core.delay", { ms })]) {
        await apply(workflow("far", [one]));
        runs.push(await host.start("far"));
      }
    }
    await ran(workflow("near", [node("gate", "core.approvalGate", { timeoutMs: 2_500 })]), "failed");
    const now = await Promise.all(runs.map(async (id) => (await host.rest("GET", `/v1/runs/${id}`)).body.status));
    const pair = ["waiting-approval", "running"];
    expect(now).toEqual([...pair, ...pair, ...pair]);
  });
});
