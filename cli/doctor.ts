/** `beamline doctor`: is everything there, new enough, durable, in time, and keeping up? Exit code 1 when something is not. */
import type { Command } from "commander";
import { fromJetStream } from "../bus/apierror.ts";
import { streams } from "../contracts/streams.ts";
import { namedRedis } from "../deploy/local/named.ts";
import { requirements } from "../deploy/local/requirements.ts";
import { formatVersion } from "../deploy/local/version.ts";
import { maskUrl } from "../runtime/setting.ts";
import { workerNames } from "../workers/modules.ts";
import { outputOf } from "./output.ts";
import { connectStack, findStack, type Connection } from "./stack.ts";
import { discover } from "./status.ts";

interface Finding {
  readonly check: string;
  readonly ok: boolean;
  readonly detail: string;
}

/** More waiting than this on a consumer is worth a look. */
const LAG_WARNING = 10_000;
/** Clocks further apart than this make deadlines and schedules unreliable, milliseconds. */
const CLOCK_WARNING_MS = 1_000;

export function doctorCommand(program: Command): void {
  program
    .command("doctor")
    .description("Check servers and versions, streams and their real durability, consumers, lag, clocks and workers.")
    .action(async (_options: unknown, command: Command) => {
      const out = outputOf(command);
      await using stack = await connectStack();
      const findings = [
        ...server(stack),
        await redis(),
        ...(await jetstream(stack)),
        ...(await workers(stack)),
        ...(await edge()),
      ];
      const shown = (ok: boolean): boolean | string => (out.json ? ok : ok ? "ok" : "NOT OK");
      out.table(findings.map(({ ok, check, detail }) => ({ ok: shown(ok), check, detail })));
      if (findings.some((finding) => !finding.ok)) process.exitCode = 1;
    });
}

function server({ bus }: Connection): Finding[] {
  const info = bus.nc.info;
  return [
    { check: "node", ok: true, detail: process.version },
    {
      check: "nats",
      ok: true,
      detail: `${info?.version ?? "?"} at ${bus.nc.getServer()} (${formatVersion(requirements.nats.minimum)} or later is needed)`,
    },
    { check: "largest message", ok: bus.maxPayload >= 1_048_576, detail: `${bus.maxPayload} bytes` },
  ];
}

/** The Redis that REDIS_URL or the local stack names. */
async function redis(): Promise<Finding> {
  const url = process.env["REDIS_URL"] ?? findStack()?.env["REDIS_URL"];
  if (url === undefined)
    return { check: "redis", ok: true, detail: "not looked at: REDIS_URL does not say where it is" };
  try {
    const { version } = await namedRedis(url);
    const needed = `${formatVersion(requirements.redis.minimum)} or later is needed`;
    return { check: "redis", ok: true, detail: `${version} at ${maskUrl(url)} (${needed})` };
  } catch (error) {
    return { check: "redis", ok: false, detail: error instanceof Error ? error.message : String(error) };
  }
}

/** Streams that cannot be looked at, for want of rights or of a server that answers, are a finding, and the rest goes on. */
async function jetstream(stack: Connection): Promise<Finding[]> {
  try {
    return [await clock(stack), ...(await streamsAndConsumers(stack))];
  } catch (thrown) {
    const { code, message } = fromJetStream(thrown, "look at streams");
    const hint = code === "permission_denied" ? "; the user operator may" : "";
    return [{ check: "streams", ok: false, detail: `${message}${hint}` }];
  }
}

async function clock({ bus }: Connection): Promise<Finding> {
  for await (const name of bus.jsm.streams.names()) {
    const before = Date.now();
    const answer = await bus.nc.request(`$JS.API.STREAM.INFO.${name}`, "", { timeout: 3_000 });
    const { ts } = answer.json<{ ts?: string }>();
    if (ts === undefined) break;
    const apart = Math.round(Date.parse(ts) - (before + Date.now()) / 2);
    return { check: "clock", ok: Math.abs(apart) < CLOCK_WARNING_MS, detail: `${apart} ms from the server's` };
  }
  return { check: "clock", ok: true, detail: "not known: no stream to ask about" };
}

/** What each stream really promises: a file store that syncs always or has three replicas survives what was acknowledged. */
async function streamsAndConsumers({ bus }: Connection): Promise<Finding[]> {
  const always = await syncsAlways();
  const findings: Finding[] = [];
  for await (const { config, state } of bus.jsm.streams.list()) {
    const replicas = config.num_replicas;
    const durable = config.storage === "file" && (replicas >= 3 || always !== false);
    const how =
      replicas >= 3
        ? `${replicas} replicas`
        : always === undefined
          ? "one copy, sync interval unknown"
          : always
            ? "one copy, synced on every write"
            : "one copy, synced now and then: a power cut loses what was acknowledged";
    findings.push({
      check: `stream ${config.name}`,
      ok: durable,
      detail: `${config.storage}, ${how}; ${state.messages} messages, ${state.bytes} bytes`,
    });
    for await (const consumer of bus.jsm.consumers.list(config.name)) {
      if (consumer.config.durable_name === undefined) continue;
      findings.push({
        check: `consumer ${config.name}/${consumer.name}`,
        ok: consumer.num_pending < LAG_WARNING,
        detail: `${consumer.num_pending} waiting, ${consumer.num_ack_pending} under way, ${consumer.num_redelivered} redelivered`,
      });
    }
  }
  const there = new Set(findings.map((finding) => finding.check));
  for (const { name } of Object.values(streams)) {
    if (!there.has(`stream ${name}`))
      findings.push({
        check: `stream ${name}`,
        ok: true,
        detail: "not made yet: the worker that needs it has not run",
      });
  }
  return findings;
}

/** Whether the local server syncs on every write; undefined for a server whose monitoring is not known. */
async function syncsAlways(): Promise<boolean | undefined> {
  const monitor = process.env["BEAMLINE_NATS_MONITOR_URL"] ?? findStack()?.env["BEAMLINE_NATS_MONITOR_URL"];
  if (monitor === undefined) return undefined;
  const response = await fetch(`${monitor}/jsz?config=true`).catch(() => undefined);
  const body = (await response?.json()) as { config?: { sync_always?: boolean } } | undefined;
  return body?.config?.sync_always === true;
}

async function workers({ caller }: Connection): Promise<Finding[]> {
  const found = await discover(caller);
  return workerNames.map((name) => {
    const replicas = found.filter((worker) => worker.name === name).length;
    return {
      check: `worker ${name}`,
      ok: replicas > 0,
      detail: replicas === 0 ? "none answers" : `${replicas} running`,
    };
  });
}

async function edge(): Promise<Finding[]> {
  const stack = findStack();
  if (stack === undefined) return [];
  const response = await fetch(`http://${stack.http}/readyz`).catch(() => undefined);
  return [
    {
      check: "edge",
      ok: response?.ok === true,
      detail: response === undefined ? `http://${stack.http} does not answer` : await response.text(),
    },
  ];
}
