/** Registering webhooks over both surfaces, the addresses that are refused, and dead letters sent again by command line (OpenWOP, webhooks). */
import { createHash, createHmac } from "node:crypto";
import { createServer, type Server } from "node:http";
import { Command } from "commander";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { dlqCommand } from "../../cli/dlq.ts";
import type { CommandContext } from "../../cli/exec.context.ts";
import { buckets } from "../../contracts/streams.ts";
import { Records } from "../../workers/runs/records.ts";
import { until } from "../kit/until.ts";
import { verifies } from "../kit/verifies.ts";
import { bearer, KEYS, startHost, type Host } from "./host.ts";
import { node, workflow } from "./workflow.kit.ts";
import { bare } from "./provoke.ts";
import { grpcSurface, restSurface, type Surface } from "./surface.ts";

const REFUSED = [
  "http://93.184.216.34/hook",
  "ftp://93.184.216.34/hook",
  "https://10.1.2.3/hook",
  "https://172.16.0.1/hook",
  "https://192.168.1.1/hook",
  "https://127.0.0.1/hook",
  "https://127.9.9.9/hook",
  "https://169.254.169.254/latest/meta-data",
  "https://169.254.1.1/hook",
  "https://[::1]/hook",
  "https://[fe80::1]/hook",
  "https://[fc00::1]/hook",
  "https://[fd12:3456::1]/hook",
  "https://localhost/hook",
  "https://LOCALHOST./hook",
  "https://metadata/hook",
  "https://metadata.google.internal/hook",
  // The same in other spellings.
  "https://2130706433/hook",
  "https://0x7f.1/hook",
  "https://127.1/hook",
  "https://0/hook",
  "https://[::ffff:127.0.0.1]/hook",
  "https://[64:ff9b::7f00:1]/hook",
  "https://100.64.0.1/hook",
  "https://user:secret@93.184.216.34/hook",
  "not a url",
];
const GOOD = "https://93.184.216.34/hook";

let host: Host;
let strict: readonly Surface[];
beforeAll(async () => {
  host = await startHost({ OPENWOP_INSECURE_WEBHOOKS: "false" });
  strict = [restSurface(host), grpcSurface(host)];
}, 60_000);
afterAll(async () => host[Symbol.asyncDispose]());

describe("registering", () => {
  verifies(
    "clear-failure",
    "addresses that may not be called are refused alike over both surfaces, and nothing is stored",
    async () => {
      for (const url of REFUSED) {
        const [rest, rpc] = await Promise.all(
          strict.map((on) => on.registerWebhook({ url, events: ["run.completed"] })),
        );
        expect([url, rest?.status, rpc?.status, rest?.body.error]).toEqual([url, 400, 3, "webhook_url_rejected"]);
        expect(bare(rpc?.body)).toEqual(bare(rest?.body));
        expect(JSON.stringify(rest?.body)).not.toContain("secret");
      }
      expect((await host.rest("GET", "/v1/webhooks")).body.webhooks).toEqual([]);
    },
  );

  test("events and other members that are wrong are refused alike, and named", async () => {
    for (const events of [[], ["completed"], ["run.finished"], ["node.sleeping"], ["a b.c"]]) {
      const [rest, rpc] = await Promise.all(strict.map((on) => on.registerWebhook({ url: GOOD, events })));
      expect([rest?.status, rpc?.status, rest?.body.error]).toEqual([400, 3, "validation_error"]);
      expect(rest?.body.details.field).toMatch(/^events/);
      expect(rpc?.body).toEqual(rest?.body);
    }
    for (const body of [
      { events: ["run.completed"] },
      { url: GOOD },
      { url: GOOD, events: "run.completed" },
      { url: GOOD, events: ["run.completed"], more: 1 },
      { url: GOOD, events: ["run.completed"], secret: "short" },
    ]) {
      const { status, body: refused } = await host.rest("POST", "/v1/webhooks", body);
      expect([status, refused.error]).toEqual([400, "validation_error"]);
    }
    const foreign = { url: GOOD, events: ["run.completed"], tenantId: "other" };
    expect((await host.rest("POST", "/v1/webhooks", foreign)).body.error).toBe("forbidden");
    const low = await host.rest("POST", "/v1/webhooks", { url: GOOD, events: ["run.completed"] }, {}, KEYS.low);
    expect([low.status, low.body.details.scopeRequired]).toEqual([403, "webhooks:manage"]);
  });

  test("the secret is shown once, with its fingerprint; a caller may bring one; lists never show any", async () => {
    const events = ["run.completed", "interrupt.requested", "vendor.acme.happened"];
    const made = await host.rest("POST", "/v1/webhooks", { url: GOOD, events, tags: ["gold"], tenantId: "acme" });
    expect(made.status).toBe(201);
    const { webhookId, secret, secretFingerprint } = made.body;
    expect(Object.keys(made.body).toSorted()).toEqual(["secret", "secretFingerprint", "webhookId"]);
    expect(secretFingerprint).toBe(createHash("sha256").update(secret).digest("hex").slice(0, 8));
    const own = "a-secret-of-the-caller";
    const brought = await host.grpc.call("registerWebhook", { url: GOOD, event_types: events, secret: own }, bearer());
    const { webhooks } = (await host.rest("GET", "/v1/webhooks")).body;
    expect(JSON.stringify(webhooks)).not.toMatch(new RegExp(`${secret}|${own}`));
    expect(webhooks).toContainEqual(
      expect.objectContaining({ webhookId, state: "active", events, tags: ["gold"], secretFingerprint }),
    );
    const fingerprint = createHash("sha256").update(own).digest("hex").slice(0, 8);
    expect(webhooks).toContainEqual(
      expect.objectContaining({ webhookId: brought.webhook_id, secretFingerprint: fingerprint }),
    );
    const strangers = (await host.rest("GET", "/v1/webhooks", undefined, {}, KEYS.other)).body.webhooks;
    expect(strangers).toEqual([]);
  });

  test("unregistering: once, over either surface, by its own tenant alone", async () => {
    const { webhooks } = (await host.rest("GET", "/v1/webhooks")).body;
    const [one, two] = webhooks.map(({ webhookId }: { webhookId: string }) => webhookId);
    const foreign = await host.rest("DELETE", `/v1/webhooks/${one}`, undefined, {}, KEYS.other);
    expect([foreign.status, foreign.body.error]).toEqual([404, "subscription_not_found"]);
    expect((await host.rest("DELETE", `/v1/webhooks/${one}?tenantId=other`)).status).toBe(404);
    const done = await host.rest("DELETE", `/v1/webhooks/${one}?tenantId=acme`);
    expect([done.status, done.body]).toEqual([204, undefined]);
    expect(await host.grpc.call("unregisterWebhook", { webhook_id: two }, bearer())).toEqual({});
    for (const on of strict) {
      const gone = [await on.unregisterWebhook(one), await on.unregisterWebhook(two)];
      expect(gone.map(({ body }) => body.error)).toEqual(["subscription_not_found", "subscription_not_found"]);
    }
  });
});

describe("deliveries of a host that may call its own machine", () => {
  let open: Host;
  let receiver: Server;
  let url = "";
  let works = true;
  const received: { readonly body: string; readonly headers: Record<string, unknown> }[] = [];
  beforeAll(async () => {
    receiver = createServer((request, response) => {
      let body = "";
      request.on("data", (chunk: Buffer) => (body += chunk.toString()));
      request.on("end", () => {
        if (works) received.push({ body, headers: request.headers });
        response.writeHead(works ? 200 : 500).end();
      });
    });
    await new Promise<void>((resolve) => receiver.listen(0, "127.0.0.1", resolve));
    url = `http://127.0.0.1:${(receiver.address() as { port: number }).port}/hook`;
    open = await startHost({ OPENWOP_INSECURE_WEBHOOKS: "true" }, 2);
  }, 60_000);
  afterAll(async () => {
    await open[Symbol.asyncDispose]();
    receiver.close();
  });

  test("what webhooks may reach on a test host is not for the nodes of workflows", async () => {
    received.length = 0;
    await open.rest("PUT", "/v1/workflows/reaching", workflow("reaching", [node("call", "core.http", { url })]));
    const { error } = await open.reaches(await open.start("reaching"), "failed");
    expect([error.code, received]).toEqual(["permission_denied", []]);
  });

  test("callbackUrl: a run's last event is sent there, once, unsigned; an address that may not be called refuses the run", async () => {
    received.length = 0;
    const create = (at: Host, callbackUrl: string) =>
      at.rest("POST", "/v1/runs", { workflowId: "conformance-failure", callbackUrl });
    const { body: made } = await create(open, `${url}?run`);
    const [one] = await until(() => received.length > 0 && received, "the callback");
    expect(JSON.parse(one?.body ?? "{}")).toMatchObject({ runId: made.runId, type: "run.failed", workspaceId: "acme" });
    expect(one?.headers).toMatchObject({ "x-openwop-event-type": "run.failed", "openwop-event-type": "run.failed" });
    expect(Object.keys(one?.headers ?? {}).filter((name) => /signature|webhook-id/.test(name))).toEqual([]);
    // The fork of a run is one of its own; a replay tells nobody.
    await open.rest("POST", `/v1/runs/${made.runId}:fork`, { mode: "replay" });
    const { body: second } = await create(open, `${url}?run`);
    await until(() => received.length > 1, "the next callback");
    expect(received.map(({ body }) => JSON.parse(body).runId)).toEqual([made.runId, second.runId]);
    for (const wrong of ["http://127.0.0.1:9/", "https://10.0.0.1/", "nonsense"]) {
      const refused = await create(host, wrong);
      expect([refused.status, refused.body.error, refused.body.details.field]).toEqual([
        400,
        "webhook_url_rejected",
        "callbackUrl",
      ]);
    }
  });

  test("what is registered over gRPC is signed with the caller's secret", async () => {
    received.length = 0;
    const secret = "a-secret-of-the-caller";
    await open.grpc.call("registerWebhook", { url, event_types: ["run.failed"], secret }, bearer());
    const runId = await open.start("conformance-failure");
    const [one] = await until(() => received.length > 0 && received, "the delivery");
    const { body = "", headers = {} } = one ?? {};
    expect(JSON.parse(body)).toMatchObject({ runId, type: "run.failed", workspaceId: "acme" });
    const mac = createHmac("sha256", secret)
      .update(`${String(headers["openwop-timestamp"])}.${body}`)
      .digest("hex");
    expect(headers["x-openwop-signature"]).toBe(`sha256=${mac}`);
  });

  verifies(
    "clear-failure",
    "a delivery given up lies with the dead letters; the command line sends it again",
    async () => {
      works = false;
      received.length = 0;
      const { webhookId } = (await open.rest("POST", "/v1/webhooks", { url, events: ["run.completed"] })).body;
      // Failed for good: what comes now is given up at once.
      const records = new Records<{ state: string }>(open.bed.bus, buckets.runWebhooks);
      const kept = await records.get("acme", webhookId);
      await records.put(["acme", webhookId], { ...kept?.value, state: "failed" });
      const runId = await open.start("conformance-noop");
      const letters = await until(async () => {
        const found = await beamline(open, "dlq", "list", "--subject", "log.run_hooks.>", "--tenant", "acme");
        return found.length > 0 && found;
      }, "the dead letter");
      expect(letters).toMatchObject([{ redrivable: true, error: expect.stringContaining(webhookId) }]);
      const listed = (await open.rest("GET", "/v1/webhooks")).body.webhooks;
      expect(listed).toContainEqual(expect.objectContaining({ webhookId, state: "failed" }));
      works = true;
      const revived = await open.rest("POST", `/v1/webhooks/${webhookId}/redrive`);
      expect([revived.status, revived.body.state]).toEqual([200, "active"]);
      const redriven = await beamline(open, "dlq", "redrive", "--all", "--subject", "log.run_hooks.>");
      expect(redriven).toMatchObject([{ outcome: "redriven" }]);
      await until(() => received.length === 1, "the delivery");
      expect(JSON.parse(received[0]?.body ?? "{}")).toMatchObject({ runId, type: "run.completed" });
      expect(await beamline(open, "dlq", "list", "--subject", "log.run_hooks.>")).toEqual([]);
    },
  );

  verifies(
    "acked-is-durable",
    "what is to be delivered outlives the workers, and so does a callback",
    async () => {
      works = false;
      received.length = 0;
      const { webhookId } = (await open.rest("POST", "/v1/webhooks", { url, events: ["run.completed"] })).body;
      const { body } = await open.rest("POST", "/v1/runs", {
        workflowId: "conformance-noop",
        callbackUrl: `${url}?run`,
      });
      await open.reaches(body.runId, "completed");
      const failures = async (): Promise<number> => {
        const { webhooks } = (await open.rest("GET", "/v1/webhooks")).body;
        return webhooks.find((one: { webhookId: string }) => one.webhookId === webhookId).failures;
      };
      await until(async () => (await failures()) > 0, "a first try");
      await open.bed.restart();
      works = true;
      const told = (id: string | undefined): typeof received =>
        received.filter(({ headers }) => headers["x-openwop-webhook-id"] === id);
      const both = (): boolean => told(webhookId).length > 0 && told(undefined).length > 0;
      await until(both, "the delivery and the callback", 30_000);
      for (const id of [webhookId, undefined])
        expect(told(id).map((one) => JSON.parse(one.body).runId)).toEqual([body.runId]);
    },
    { timeout: 60_000 },
  );
});

/** What a command printed. */
async function beamline({ bed }: Host, ...args: string[]): Promise<Record<string, unknown>[]> {
  const printed: Record<string, unknown>[] = [];
  const context: CommandContext = {
    connect: async () => ({ bus: bed.bus, caller: bed.caller, [Symbol.asyncDispose]: async () => undefined }),
    out: () => ({
      json: true,
      line: () => undefined,
      record: (record) => void printed.push({ ...record }),
      table: (rows) => void printed.push(...rows.map((row) => ({ ...row }))),
    }),
  };
  const program = new Command("beamline").exitOverride();
  dlqCommand(program, context);
  await program.parseAsync(["node", "beamline", ...args]);
  return printed;
}
