/**
 * The tools worker: runs tools, undoes them, and keeps what it did.
 *
 * Opened in this order, closed in reverse: Redis (rate limits), the way out (HTTP and gRPC), the stores in JetStream, imported MCP servers,
 * the sweeper. Redis may be away: limits are each worker's own then. JetStream may not: a tool that changes something is recorded first.
 */
import { hostname, tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { ObjectStore } from "../../bus/objects.ts";
import { endpointsOf } from "../../bus/endpoint.ts";
import { ToolRegistryDefinition } from "../../contracts/gen/aios/tools.ts";
import { buckets, objects, streams } from "../../contracts/streams.ts";
import { systemClock } from "../../runtime/clock.ts";
import { createEgress } from "../../runtime/egress.ts";
import { systemIds } from "../../runtime/ids.ts";
import { connectRedis } from "../connect.redis.ts";
import { defineWorker } from "../module.ts";
import { Approvals, isApproval } from "./approval.ts";
import { Backups } from "./backup.ts";
import { Bucket } from "./bucket.ts";
import { Claims, isClaim } from "./claims.ts";
import { Executions } from "./executions.ts";
import { outsideHandlers } from "./external/external.ts";
import { Confined } from "./files/confine.ts";
import { Grants, isGrants } from "./grants.ts";
import { toolHandlers } from "./handlers.ts";
import type { Host } from "./host.ts";
import { facts } from "./catalogue/facts.ts";
import { Ledger } from "./audit/ledger.ts";
import { Measures } from "./measures.ts";
import { neighbours } from "./neighbours.ts";
import { Pipeline } from "./pipeline.ts";
import { RateLimit } from "./ratelimit.redis.ts";
import { isRegistered, Registry } from "./registry.ts";
import { Rollbacks } from "./rollback.ts";
import { McpServers, readMcpFile } from "./external/mcp.ts";
import { Plugins } from "./plugins/plugins.ts";
import { Programs } from "./sandbox/run.ts";
import { openSweeper } from "./sweeper.ts";
import { askHost, toolEndpoints } from "./endpoints.ts";
import { VERSION } from "../../runtime/version.ts";
import { Secrets } from "./secrets.ts";
import { wordInput } from "./schema.ts";
import { toolsSettings } from "./settings.ts";
import { ToolFailure } from "./failure.ts";

export const toolsWorker = defineWorker({
  name: "tools",
  settings: toolsSettings,
  streams: [streams.toolExecutions, streams.toolAudit],
  buckets: [buckets.toolRegistry, buckets.toolGrants, buckets.toolApprovals, buckets.toolClaims],
  objects: [objects.toolBackups],

  async open(scope, { config, bus, caller, log, env, metrics }) {
    const data = resolve(config.BEAMLINE_DATA_DIR);
    const clock = systemClock;
    const { redis } = await scope.open(
      "redis",
      () => connectRedis(config.REDIS_URL, "tools"),
      (hot) => hot.close(),
    );
    const egress = scope.use("egress", createEgress({ allow: config.BEAMLINE_TOOLS_EGRESS_ALLOW }), (out) =>
      out.close(),
    );
    const files = await Confined.open(config.BEAMLINE_TOOLS_ROOTS ?? [join(data, "workspace"), tmpdir()]);
    const backups = new Backups(await ObjectStore.open(bus, objects.toolBackups));
    const ledger = scope.use("ledger", new Ledger(bus), (rows, deadline) => rows.settled(deadline.signal));
    const grants = new Grants(new Bucket(bus, buckets.toolGrants, isGrants), clock, (resource) => files.real(resource));
    const executions = new Executions(bus);
    const programs = new Programs(env, files.roots[0] ?? "/");
    if ((await programs.apart()) === undefined)
      log.warn("plugins and spawned programs cannot be kept from reading this process's environment and memory here");
    const servers = await readMcpFile(config.BEAMLINE_TOOLS_MCP);
    const mcp = scope.use("mcp servers", new McpServers({ egress, programs, servers, version: VERSION }), (m) =>
      m.close(),
    );
    const registered = new Bucket(bus, buckets.toolRegistry, isRegistered);
    const outside = outsideHandlers({ egress, caller, mcp, maxBytes: config.BEAMLINE_TOOLS_MAX_OUTPUT_BYTES });
    const registry = new Registry(registered, outside, clock);
    const approvals = new Approvals(
      new Bucket(bus, buckets.toolApprovals, isApproval),
      ledger,
      clock,
      systemIds,
      config.BEAMLINE_TOOLS_CONFIRM,
      config.BEAMLINE_TOOLS_APPROVAL_MS,
    );
    const claims = new Claims(new Bucket(bus, buckets.toolClaims, isClaim), executions, clock);
    const rate = new RateLimit(
      redis,
      {
        agent: { perSecond: config.BEAMLINE_TOOLS_AGENT_RATE, capacity: config.BEAMLINE_TOOLS_AGENT_BURST },
        tool: { perSecond: config.BEAMLINE_TOOLS_TOOL_RATE, capacity: config.BEAMLINE_TOOLS_TOOL_BURST },
      },
      clock,
    );
    const sandbox = {
      memoryBytes: config.BEAMLINE_TOOLS_SANDBOX_MEMORY_MB * 1024 * 1024,
      files: config.BEAMLINE_TOOLS_SANDBOX_FILES,
      processes: config.BEAMLINE_TOOLS_SANDBOX_PROCESSES,
      cpuSeconds: config.BEAMLINE_TOOLS_SANDBOX_SECONDS,
    };
    const pluginDirectory = resolve(config.BEAMLINE_TOOLS_PLUGINS ?? join(data, "plugins"));
    const plugins = new Plugins(registered, programs, sandbox, pluginDirectory, clock);
    const host: Host = {
      files,
      programs,
      limits: sandbox,
      plugins,
      egress,
      backups,
      grants,
      ledger,
      secrets: new Secrets(config.BEAMLINE_TOOLS_SECRETS),
      clock,
      newId: () => systemIds.v4(),
      node: config.BEAMLINE_TOOLS_NODE ?? hostname(),
      places: {
        data,
        plugins: pluginDirectory,
        source: resolve(config.BEAMLINE_TOOLS_SELF_PATH ?? "."),
        smtp: config.BEAMLINE_TOOLS_SMTP,
      },
      neighbours: () => neighbours(bus.nc.getServer(), config.REDIS_URL, env),
      mayUpdateItself: config.BEAMLINE_TOOLS_SELF_UPDATE,
      async seen(name, input, call) {
        return (await registry.find(call.tenant, name))?.handler.seen?.(input, { ...call, depth: call.depth + 1 });
      },
      async runTool(name, input, call) {
        const offered = await registry.find(call.tenant, name);
        if (offered === undefined) throw new ToolFailure(`the tool ${name} is gone`);
        if (call.depth > 4) throw new ToolFailure(`${name}: tools call one another too deeply`);
        // What a registered tool names as its opposite gets that tool's input like anyone's, and none of what only we may ask for.
        const ours = Object.hasOwn(facts, call.tool);
        const violations = ours ? [] : offered.checkInput(input);
        if (violations.length > 0) throw new ToolFailure(wordInput(name, violations));
        return offered.handler.run(input, {
          ...call,
          tool: name,
          depth: ours ? call.depth + 1 : 0,
          steps: [],
          undo: () => undefined,
        });
      },
    };
    const limits = {
      inputBytes: config.BEAMLINE_TOOLS_MAX_INPUT_BYTES,
      outputBytes: config.BEAMLINE_TOOLS_MAX_OUTPUT_BYTES,
    };
    const ports = {
      registry,
      grants,
      rate,
      approvals,
      claims,
      executions,
      ledger,
      host,
      measures: new Measures(metrics, Object.keys(facts)),
      clock,
      ids: systemIds,
      log,
      limits,
    };
    const pipeline = new Pipeline(ports);
    const rollbacks = new Rollbacks(ports, askHost(caller));
    scope.use("sweeper", openSweeper(ports, approvals), (sweeper) => sweeper.close());
    await mcp.importAll(registry, (name, error) => log.warn(`the MCP server ${name} was not imported`, { error }));
    return [
      ...endpointsOf(ToolRegistryDefinition, toolHandlers({ registry, pipeline, rollbacks })),
      ...toolEndpoints({ grants, approvals, ledger, rollbacks, executions, registry, mcp, node: host.node }),
    ];
  },
});
