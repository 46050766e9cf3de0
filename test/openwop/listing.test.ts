/** The list of runs, page by page, over REST and by the command line, while more come. */
import { Command } from "commander";
import { afterAll, beforeAll, expect, test } from "vitest";
import { runsCommand } from "../../cli/runs.ts";
import { publish } from "../../bus/publish.ts";
import { streams } from "../../contracts/streams.ts";
import { until } from "../kit/until.ts";
import { KEYS, startHost, type Got, type Host } from "./host.ts";

let host: Host;
beforeAll(async () => {
  host = await startHost({}, 2);
}, 60_000);
afterAll(async () => host[Symbol.asyncDispose]());

const list = (query: string, key: string = KEYS.full): Promise<Got> =>
  host.rest("GET", `/v1/runs?${query}`, undefined, {}, key);

interface Row {
  readonly runId: string;
  readonly status: string;
  readonly startedAt: string;
}

/** Every page, each asked for after `between`. */
async function pages(query: string, between: () => Promise<unknown> = async () => undefined): Promise<Row[][]> {
  const all: Row[][] = [];
  for (let cursor = ""; ;) {
    const { status, body } = await list(`${query}${cursor === "" ? "" : `&cursor=${cursor}`}`);
    expect(status, JSON.stringify(body)).toBe(200);
    all.push(body.runs);
    if (body.nextCursor === undefined) return all;
    cursor = body.nextCursor;
    await between();
  }
}

const start = async (workflowId: string, key: string = KEYS.full): Promise<string> =>
  (await host.rest("POST", "/v1/runs", { workflowId }, {}, key)).body.runId;

/** Starts runs, as many at a time as an edge takes. */
async function several(count: number, key: string): Promise<string[]> {
  const made: string[] = [];
  while (made.length < count)
    made.push(...(await Promise.all(Array.from({ length: 100 }, () => start("conformance-noop", key)))));
  return made;
}

test("nothing: one page, empty", async () => {
  expect((await list("")).body).toEqual({ runs: [] });
});

test("pages hold every run once, newest first, however many come meanwhile, children among them", async () => {
  const made: string[] = [];
  for (let count = 0; count < 8; count++) made.push(await start("conformance-noop"));
  const parent = await start("conformance-subworkflow-parent");
  const { childRuns } = await host.reaches(parent, "completed");
  made.push(parent, childRuns[0].runId);
  made.push(await start("conformance-noop"));
  const found = await pages("limit=3", () => start("conformance-noop"));
  expect(found.slice(0, -1).map(({ length }) => length)).toEqual(found.slice(0, -1).map(() => 3));
  const runs = found.flat();
  expect(runs.map(({ runId }) => runId)).toEqual(made.toReversed());
  expect(runs.map(({ startedAt }) => startedAt)).toEqual(
    runs
      .map(({ startedAt }) => startedAt)
      .toSorted()
      .toReversed(),
  );
  // A page that is full to the last run there is, is the last.
  const all = (await list("limit=500")).body.runs.length;
  expect(await pages(`limit=${all}`)).toHaveLength(1);
});

test("a status is found wherever it is; a run that waits with its child is told as it is read", async () => {
  const gates = [await start("conformance-approval"), await start("conformance-interrupt-parent-child-cancel")];
  for (const runId of gates) await host.reaches(runId, "waiting-approval");
  const { childRuns } = (await host.rest("GET", `/v1/runs/${gates[1] ?? ""}`)).body;
  for (let count = 0; count < 5; count++) await start("conformance-noop");
  const found = (await pages("limit=1&status=waiting-approval")).flat().map(({ runId }) => runId);
  expect(found).toEqual([childRuns[0].runId, gates[1], gates[0]]);
  expect(await pages("status=paused")).toEqual([[]]);
});

test(
  "a tenant among others: its own runs alone, few among many or many behind them",
  { timeout: 120_000 },
  async () => {
    const before = (await pages("limit=500")).flat().length;
    const early = await start("conformance-noop", KEYS.other);
    const many = await several(1_100, KEYS.full);
    const late = await several(600, KEYS.other);
    const ours = (await pages("limit=500")).flat().map(({ runId }) => runId);
    expect(ours).toHaveLength(before + many.length);
    expect(new Set(ours.slice(0, many.length))).toEqual(new Set(many));
    const first = (await list("limit=500", KEYS.other)).body;
    const second = (await list(`limit=500&cursor=${first.nextCursor}`, KEYS.other)).body;
    const theirs = [...first.runs, ...second.runs].map(({ runId }: Row) => runId);
    expect(second.nextCursor).toBeUndefined();
    expect(theirs.at(-1)).toBe(early);
    expect(new Set(theirs)).toEqual(new Set([early, ...late]));
    // More than one page can be looked through.
    expect((await pages("status=paused&limit=500")).flat()).toEqual([]);
    expect(await beamline("list", "--tenant", "acme", "--limit", "1050")).toEqual(ours.slice(0, 1_050));
    expect(await beamline("list", "--tenant", "acme", "--limit", "5000")).toEqual(ours);
    expect(await beamline("list", "--tenant", "acme", "--limit", "7", "--status", "completed")).toHaveLength(7);
  },
);

/** Ids of the runs a command printed. */
async function beamline(...args: string[]): Promise<string[]> {
  const printed: unknown[] = [];
  const program = new Command("beamline").exitOverride();
  const { bus, caller } = host.bed;
  runsCommand(program, {
    connect: async () => ({ bus, caller, [Symbol.asyncDispose]: async () => undefined }),
    out: () => ({
      json: true,
      line: () => undefined,
      record: () => undefined,
      table: (rows) => void printed.push(...rows.map((row) => (row as Record<string, unknown>)["runId"])),
    }),
  });
  await program.parseAsync(["node", "beamline", "runs", ...args]);
  return printed.map(String);
}

test.each([
  ["cursor", "cursor=nonsense"],
  ["cursor", `cursor=${Buffer.from("runs:-1").toString("base64url")}`],
  ["cursor", `cursor=${Buffer.from("runs:1").toString("base64url")}%3D`],
  ["cursor", "cursor=cnVuczox&cursor=cnVuczox"],
  ["limit", "limit=0"],
  ["limit", "limit=501"],
  ["limit", "limit=ten"],
  ["limit", "limit=1.5"],
  ["status", "status=asleep"],
])("%s is refused by its name: %s", async (field, query) => {
  const { status, body } = await list(query);
  expect([status, body.error, body.details.field]).toEqual([400, "validation_error", field]);
  expect(body.message).toContain(field);
});

test("a cursor of nowhere is the end, and one of another tenant shows nothing of it", async () => {
  expect((await list(`cursor=${Buffer.from("runs:0").toString("base64url")}`)).body).toEqual({ runs: [] });
  const { nextCursor } = (await list("limit=1")).body;
  const there = new Set((await list("limit=500")).body.runs.map(({ runId }: Row) => runId));
  const seen = (await list(`limit=500&cursor=${nextCursor}`, KEYS.other)).body.runs as Row[];
  expect(seen.length).toBeGreaterThan(0);
  expect(seen.filter(({ runId }) => there.has(runId))).toEqual([]);
});

test("a log that cannot be read is told as broken, its work is a dead letter at once, and the other runs are listed", async () => {
  const { bus } = host.bed;
  const good = await host.start("conformance-noop");
  await host.reaches(good, "completed");
  const rubbish = ["", "null", "[]", "{", "{}", '{"events":null}', '{"events":[null]}', '{"events":[],"run":{}}'];
  const logs = rubbish.map((text, at): [string, string] => [`log.runs.acme.broken-${at}.wake`, text]);
  // One that began well.
  logs.push([`log.runs.acme.${good}.step`, '{"events":[{}]}']);
  for (const [subject, text] of logs) await publish(bus, subject, text);
  for (const runId of ["broken-3", good])
    expect((await host.rest("GET", `/v1/runs/${runId}`)).body.error).toBe("internal_error");
  const { status, body } = await list("limit=500");
  expect(status).toBe(200);
  const ids = body.runs.map(({ runId }: Row) => runId);
  expect(ids.length).toBeGreaterThan(0);
  expect(ids.filter((id: string) => id === good || id.startsWith("broken"))).toEqual([]);
  await until(async () => {
    const { num_pending } = await bus.jsm.consumers.info(streams.runs.name, "engine");
    const buried = await bus.jsm.streams.info(streams.deadLetters.name, { subjects_filter: "dlq.RUNS.engine" });
    return num_pending === 0 && buried.state.subjects?.["dlq.RUNS.engine"] === rubbish.length;
  }, "the dead letters");
});
