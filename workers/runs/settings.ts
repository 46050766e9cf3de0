/** Settings of the runs worker. */
import { bool, durationMs, int, list, optional, secret, url } from "../../runtime/setting.ts";
import { openwopSettings } from "../../runtime/settings.ts";

export const runsSettings = {
  OPENWOP_FIXTURES: bool(false, "Loads the conformance fixture workflows and says so in discovery."),
  OPENWOP_WORKFLOWS: list(
    [],
    "Workflow files (JSON) or folders of them to register for every tenant at start, separated by commas.",
  ),
  OPENWOP_MAX_NODE_EXECUTIONS: int(10_000, "Node executions of one run at most.", { min: 1 }),
  OPENWOP_MAX_RUN_MS: durationMs(0, "Longest run; 0 for no limit.", { min: 0 }),
  OPENWOP_MAX_LOOP_ITERATIONS: int(100, "Turns of one loop at most.", { min: 1 }),
  OPENWOP_RUN_CONCURRENCY: int(256, "Runs one worker executes at once.", { min: 1, max: 10_000 }),
  OPENWOP_LEASE_MS: durationMs(10_000, "Time after which the runs of a worker that died are taken over.", {
    min: 1_000,
  }),
  OPENWOP_TOKEN_SECRETS: secret(
    optional,
    "Secrets that sign interrupt tokens, as id:secret separated by commas; the first signs, all verify. Made and kept on the bus when not given.",
    {
      pattern: /^[\w-]+:[^,:\s]{16,}(,[\w-]+:[^,:\s]{16,})*$/,
      expected: "id:secret pairs with secrets of 16 characters or more, separated by commas",
    },
  ),
  OPENWOP_GRPC_ENDPOINT: url(
    optional,
    "Where clients reach the gRPC surface, as discovery says it: grpcs://host:port with TLS, grpc:// without. Not claimed when not given.",
    { schemes: ["grpc", "grpcs"] },
  ),
  OPENWOP_PRODUCTION: bool(
    false,
    "Claims the production profile, which takes a gRPC surface with TLS and keys remembered for a day.",
  ),
  OPENWOP_INFLIGHT_CAP: openwopSettings.OPENWOP_INFLIGHT_CAP,
  OPENWOP_IDEMPOTENCY_MS: durationMs(
    172_800_000,
    "How long an idempotency key is remembered; a conforming host remembers a day or longer, less is for tests.",
    { min: 1, max: 172_800_000 },
  ),
  OPENWOP_EGRESS_ALLOW: list(
    [],
    "Private destinations that webhooks and HTTP nodes may reach all the same: host, host:port or range.",
  ),
  OPENWOP_INSECURE_WEBHOOKS: bool(false, "Lets webhooks use http and private addresses, for test hosts alone."),
};
