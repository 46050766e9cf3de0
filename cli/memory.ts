/** `beamline memory`: search, add, see the context a task would get, watch events. `beamline rebuild memory`: projections anew from the log. */
import { text as readAll } from "node:stream/consumers";
import type { Command } from "commander";
import { BeamlineError, invalidArgument } from "../contracts/errors.ts";
import { codecOf, opaque } from "../contracts/codec.ts";
import { MemoryServiceDefinition, type Event } from "../contracts/gen/aios/memory.ts";
import { header } from "../contracts/headers.ts";
import { routesOf } from "../contracts/routes.ts";
import { openStream } from "../bus/stream.ts";
import { tiers } from "../workers/memory/context.ts";
import { collectionNames } from "../workers/memory/index/document.ts";
import { followEvents } from "./memory.follow.ts";
import { bar } from "./memory.progress.ts";
import { outputOf, type Output } from "./output.ts";
import { connectStack, type Connection } from "./stack.ts";

type Methods = typeof MemoryServiceDefinition.methods;
type Reply<M extends keyof Methods> = ReturnType<Methods[M]["responseType"]["decode"]>;

const routes = routesOf(MemoryServiceDefinition);
const REBUILD_SUBJECT = "beamline.memory.v1.rebuild";
const DAY_MS = 86_400_000;

interface InTenant {
  readonly tenant: string;
}

async function rpc<M extends keyof Methods>(
  stack: Connection,
  method: M,
  request: object,
  tenant: string,
): Promise<Reply<M>> {
  const { subject, timeoutMs, worker } = routes[method];
  const { requestType, responseType } = MemoryServiceDefinition.methods[method];
  const asked = codecOf(opaque(requestType)).toJson(opaque(requestType).fromPartial(request));
  const headers = {
    [header.tenantId]: tenant,
    [header.principal]: "cli",
    [header.deadline]: String(Date.now() + timeoutMs),
  };
  const told = await stack.caller.request(subject, asked, { timeoutMs, worker, headers });
  return codecOf(opaque(responseType)).fromJson(told) as Reply<M>;
}

/** Adds `memory` with its subcommands. */
export function memoryCommand(program: Command): void {
  const memory = program.command("memory").description("Look into what agents remember.");

  memory
    .command("search")
    .description("Find memories by what they mean.")
    .argument("<query>", "what to look for, in any words")
    .option(
      "-c, --collections <names>",
      "some of decisions, incidents, procedures, config_changes, knowledge; all without it",
      some("--collections", collectionNames),
      [],
    )
    .option("-n, --results <count>", "how many at most", whole("--results"), 10)
    .option("-m, --min-relevance <value>", "least relevance, 0 to 1", share("--min-relevance"), 0)
    .option("-t, --tenant <id>", "tenant", "default")
    .action(
      async (
        query: string,
        options: InTenant & { collections: string[]; results: number; minRelevance: number },
        command: Command,
      ) => {
        const out = outputOf(command);
        await using stack = await connectStack();
        const request = {
          query,
          collections: options.collections,
          n_results: options.results,
          min_relevance: options.minRelevance,
        };
        const { results } = await rpc(stack, "semanticSearch", request, options.tenant);
        const rows = results.map(({ relevance, collection, id, content, metadata_json }) => ({
          relevance: Number(relevance.toFixed(3)),
          collection,
          id,
          content: out.json ? content : shortened(content),
          ...(out.json && { metadata: JSON.parse(metadata_json.toString("utf8")) as unknown }),
        }));
        out.table(rows, "nothing found");
      },
    );

  memory
    .command("add")
    .description("Add a piece of knowledge; the same title and source again replaces it.")
    .argument("<title>", "what it is about")
    .argument("[content]", "the text; read from standard input without it")
    .option("-s, --source <source>", "where it comes from", "cli")
    .option("--tags <tags>", "separated by commas", words, [])
    .option("-t, --tenant <id>", "tenant", "default")
    .action(
      async (
        title: string,
        content: string | undefined,
        options: InTenant & { source: string; tags: string[] },
        command: Command,
      ) => {
        const text = content ?? (await readAll(process.stdin)).trim();
        await using stack = await connectStack();
        await rpc(
          stack,
          "addKnowledge",
          { title, content: text, source: options.source, tags: options.tags },
          options.tenant,
        );
        outputOf(command).record({ added: title, source: options.source, characters: text.length });
      },
    );

  memory
    .command("context")
    .description("Show the context a task would be given.")
    .argument("<task>", "description of the task")
    .option("--tokens <count>", "budget; 0 is 4000", whole("--tokens"), 0)
    .option(
      "--tiers <names>",
      "some of operational, working, longterm, knowledge; all without it",
      some("--tiers", [...tiers, "long_term"]),
      [],
    )
    .option("-t, --tenant <id>", "tenant", "default")
    .action(async (task: string, options: InTenant & { tokens: number; tiers: string[] }, command: Command) => {
      const out = outputOf(command);
      await using stack = await connectStack();
      const request = { task_description: task, max_tokens: options.tokens, memory_tiers: options.tiers };
      const context = await rpc(stack, "assembleContext", request, options.tenant);
      if (out.json) return out.record({ ...context });
      const rows = context.chunks.map(({ source, relevance, tokens, content }) => ({
        source,
        relevance: relevance.toFixed(3),
        tokens,
        content: shortened(content),
      }));
      out.table(rows, "nothing to tell");
      out.line(`${context.total_tokens} tokens`);
    });

  memory
    .command("events")
    .description("Show the latest events, newest last; --follow goes on with what happens.")
    .option("-n, --count <count>", "how many", whole("--count"), 20)
    .option("--category <category>", "this category alone", "")
    .option("--source <source>", "this source alone", "")
    .option("-f, --follow", "go on until interrupted")
    .option("-t, --tenant <id>", "tenant", "default")
    .action(
      async (
        options: InTenant & { count: number; category: string; source: string; follow?: boolean },
        command: Command,
      ) => {
        const out = outputOf(command);
        await using stack = await connectStack();
        const { count, category, source, tenant } = options;
        const stop = new AbortController();
        const wanted = (event: Event): boolean =>
          (category === "" || event.category === category) && (source === "" || event.source === source);
        // Listening begins before the past is read, so that nothing falls between the two.
        const follow = options.follow === true ? await followEvents(stack.bus, tenant, stop.signal) : undefined;
        const { events } = await rpc(stack, "getRecentEvents", { count, category, source }, tenant);
        const shown = new Set<string>();
        for (const event of events.toReversed()) {
          shown.add(keyOf(event));
          show(out, event);
        }
        if (follow === undefined) return;
        process.once("SIGINT", () => stop.abort());
        for await (const event of follow) {
          if (!wanted(event) || shown.delete(keyOf(event))) continue;
          show(out, event);
        }
      },
    );
}

/** Adds `rebuild memory` to a `rebuild` command, which is made when there is none yet. */
export function rebuildMemoryCommand(program: Command): void {
  const rebuild =
    program.commands.find((one) => one.name() === "rebuild") ??
    program.command("rebuild").description("Build projections anew from the log.");
  rebuild
    .command("memory")
    .description("Hot state and search index of memory, from the log. Calls wait meanwhile.")
    .option("--only <what>", "hot or index; both without it")
    .action(async (options: { only?: string }, command: Command) => {
      if (options.only !== undefined && options.only !== "hot" && options.only !== "index") {
        throw new BeamlineError("invalid_argument", `--only is hot or index, not ${options.only}`, { field: "only" });
      }
      const out = outputOf(command);
      await using stack = await connectStack();
      const request = JSON.stringify(options.only === undefined ? {} : { what: [options.only] });
      const progress = bar(process.stderr, !out.json);
      const done: Record<string, number> = {};
      for await (const message of openStream(stack.caller, REBUILD_SUBJECT, request, {
        timeoutMs: DAY_MS,
        worker: "memory",
      })) {
        const told = JSON.parse(message) as { projection?: string; done: number; total: number };
        if (told.projection === undefined) continue;
        done[told.projection] = told.done;
        progress.show(told.projection, told.done, told.total);
      }
      progress.end();
      out.record({ rebuilt: options.only ?? "hot, index", ...done });
    });
}

function show(out: Output, event: Event): void {
  const { id, timestamp, category, source, data_json, critical } = event;
  if (out.json)
    return void process.stdout.write(
      `${JSON.stringify({ id, timestamp: numberOf(timestamp), category, source, critical, data_json: data_json.toString("utf8") })}\n`,
    );
  out.line(
    `${momentOf(timestamp)}  ${critical ? "!" : " "} ${category.padEnd(14)} ${source.padEnd(16)} ${shortened(data_json.toString("utf8"))}`,
  );
}

/** As the contract writes it: a decimal string beyond what a number holds. */
function numberOf(value: bigint): number | string {
  return Number.isSafeInteger(Number(value)) ? Number(value) : String(value);
}

/** Seconds as a date; as they are when no calendar goes that far, which is how somebody's nanoseconds look. */
function momentOf(seconds: bigint): string {
  const at = new Date(Number(seconds) * 1000);
  return Number.isNaN(at.getTime()) ? String(seconds).padEnd(19) : at.toISOString().slice(0, 19).replace("T", " ");
}

const keyOf = ({ id, timestamp, data_json }: Event): string => `${id}\n${timestamp}\n${data_json.toString("utf8")}`;

function shortened(text: string): string {
  const line = text.replaceAll(/\s+/g, " ");
  return line.length > 100 ? `${line.slice(0, 99)}…` : line;
}

function words(given: string): string[] {
  return given
    .split(",")
    .map((word) => word.trim())
    .filter((word) => word !== "");
}

/** Names out of a list, separated by commas. Throws `invalid_argument` naming the option and what there is. */
function some(option: string, known: readonly string[]): (given: string) => string[] {
  return (given) => {
    const names = words(given);
    const strange = names.find((name) => !known.includes(name));
    if (strange === undefined) return names;
    throw invalidArgument(option, `knows no ${strange}, but ${known.join(", ")}`);
  };
}

function whole(option: string): (given: string) => number {
  return (given) => {
    const value = Number(given);
    if (/^-?\d+$/.test(given) && Math.abs(value) < 2 ** 31) return value;
    throw invalidArgument(option, `wants a whole number, not ${given}`);
  };
}

function share(option: string): (given: string) => number {
  return (given) => {
    const value = Number(given);
    if (given.trim() !== "" && value >= 0 && value <= 1) return value;
    throw invalidArgument(option, `wants a number from 0 to 1, not ${given}`);
  };
}
