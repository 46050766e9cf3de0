/** What a workflow calls sensitive is masked on every surface, in the way it says; its nodes see what is real (OpenWOP, privacy and redaction). */
import { afterAll, beforeAll, expect, test } from "vitest";
import { startHost, type Host } from "./host.ts";
import { overGrpc, overSse } from "./reading.ts";
import { grpcSurface } from "./surface.ts";
import { node, workflow } from "./workflow.kit.ts";

let host: Host;
beforeAll(async () => {
  host = await startHost();
}, 60_000);
afterAll(async () => host[Symbol.asyncDispose]());

const secrets = {
  variable: "secret-of-a-variable",
  channel: "secret-of-a-channel",
  port: "secret-of-a-port",
  later: "secret-that-came-later",
};

/** A secret of each kind, and a node that counts the letters of each. */
const secretive = (mode: string): ReturnType<typeof workflow> =>
  workflow(
    `secretive-${mode}`,
    [
      node("port", "core.transform", { expression: `'${secrets.port}'` }, { outputSensitivity: { result: true } }),
      node("write", "core.channelWrite", { channelName: "notes", value: secrets.channel }),
      node("set", "core.setVariable", { name: "later", value: secrets.later }),
      node("get", "core.getVariable", { name: "later" }),
      node("use", "core.transform", {
        expression:
          "size(variables.password) + size(variables.notes[0]) + size(outputs.port.result) + size(variables.later)",
      }),
    ],
    {
      edges: ["port>write", "write>set", "set>get", "get>use"],
      variables: [
        { name: "password", type: "string", required: true, sensitive: true },
        { name: "later", type: "string", sensitive: true },
      ],
      channels: { notes: { reducer: "append", sensitive: true } },
      metadata: { complianceClass: "pii", complianceConfig: { maskingMode: mode } },
    },
  );

/** Everything a client can read of a run that used the secrets, by surface. */
async function shown(mode: string): Promise<Readonly<Record<string, unknown>>> {
  const definition = secretive(mode);
  expect((await host.rest("PUT", `/v1/workflows/${definition.id}`, definition)).status).toBe(201);
  const runId = await host.start(definition.id, { inputs: { password: secrets.variable } });
  const snapshot = await host.reaches(runId, "completed");
  const events = await host.events(runId);
  const letters = Object.values(secrets).join("").length;
  const used = events.find(({ type, nodeId }) => type === "node.completed" && nodeId === "use");
  expect(used?.payload, "nodes see what is real").toMatchObject({ outputs: { result: letters } });
  return {
    snapshot,
    events,
    overGrpc: (await grpcSurface(host).get(runId)).body,
    values: (await overSse(host)(runId, { modes: ["values"] })).events,
    debug: (await overGrpc(host)(runId, { modes: ["debug"] })).events,
    bundle: (await host.rest("GET", `/v1/runs/${runId}/debug-bundle`)).body,
  };
}

for (const [mode, variable] of [
  ["mask", "[REDACTED]"],
  ["omit", undefined],
  ["hash", expect.stringMatching(/^sha256:[0-9a-f]{64}$/)],
] as const) {
  test(`${mode}: no secret on any surface`, async () => {
    const surfaces = await shown(mode);
    for (const [name, surface] of Object.entries(surfaces))
      for (const secret of Object.values(secrets)) expect(JSON.stringify(surface), name).not.toContain(secret);
    expect((surfaces["snapshot"] as { variables: { password?: string } }).variables.password).toEqual(variable);
    expect(surfaces["bundle"]).toMatchObject({ redactionApplied: true, redactionMode: mode });
  });
}

test("passthrough: everything as it is, and the bundle says so", async () => {
  const { events, debug, bundle, snapshot } = await shown("passthrough");
  for (const [name, surface] of Object.entries({ events, debug, bundle }))
    for (const secret of Object.values(secrets)) expect(JSON.stringify(surface), name).toContain(secret);
  expect(snapshot).toMatchObject({ variables: { password: secrets.variable }, channels: { notes: [secrets.channel] } });
  expect(bundle).toMatchObject({ redactionApplied: false, redactionMode: "passthrough" });
});

test("what a run asks, and why it failed, shows no secret either", async () => {
  const secret = "secret-in-a-question";
  const nodes = [
    node("gate", "core.approvalGate", {
      title: "send {{variables.password}} and {{variables.later}}?",
      artifactData: { to: "{{variables.password}}", cc: "{{channels.notes}}", port: "{{outputs.port.result}}" },
    }),
    node("fail", "core.fail", {
      message: "cannot use {{variables.password}}, nor {{variables.later}}",
      code: "no_use",
    }),
    node("port", "core.transform", { expression: `'${secrets.port}'` }, { outputSensitivity: { result: true } }),
    node("write", "core.channelWrite", { channelName: "notes", value: secrets.channel }),
    node("set", "core.setVariable", { name: "later", value: secrets.later }),
    node("tell", "core.transform", { expression: "'told: ' + variables.later + channels.notes[0]" }),
  ];
  const variables = [
    { name: "password", type: "string", required: true, sensitive: true },
    { name: "later", type: "string", sensitive: true },
  ] as const;
  const edges = ["port>write", "write>set", "set>tell", "tell>gate", "gate>fail"];
  const channels = { notes: { reducer: "append", sensitive: true } };
  const definition = workflow("asks-secretly", nodes, { edges, variables, channels });
  expect((await host.rest("PUT", "/v1/workflows/asks-secretly", definition)).status).toBe(201);
  const runId = await host.start("asks-secretly", { inputs: { password: secret } });
  const waiting = await host.reaches(runId, "waiting-approval");
  const inspected = await host.rest("GET", `/v1/interrupts/${waiting.interrupt.interruptToken}`, undefined, {}, "");
  await host.rest("POST", `/v1/runs/${runId}/interrupts/gate`, {
    resumeValue: { action: "accept", feedback: `not ${secret}` },
  });
  const failed = await host.reaches(runId, "failed");
  const bundle = (await host.rest("GET", `/v1/runs/${runId}/debug-bundle`)).body;
  const fork = await host.rest("POST", `/v1/runs/${runId}:fork`, { mode: "branch", fromSeq: 1 });
  const diff = (await host.rest("GET", `/v1/runs/${runId}:diff?against=${fork.body.runId}`)).body;
  const list = (await host.rest("GET", "/v1/runs")).body;
  const shown = { waiting, inspected, failed, bundle, diff, list, events: await host.events(runId) };
  for (const [name, surface] of Object.entries(shown))
    for (const one of [secret, secrets.later, secrets.channel, secrets.port])
      expect(JSON.stringify(surface), name).not.toContain(one);
});
