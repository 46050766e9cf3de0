/** A tools worker in a process of its own, for tests that kill it. Says `ready` when it serves. */
import { Bus } from "../../bus/connect.ts";
import { Scope } from "../../runtime/lifecycle.ts";
import { openTools } from "./testbed.ts";

const env = process.env;
const scope = new Scope();
const bus = await Bus.connect({
  url: env["NATS_URL"] ?? "",
  name: "worker-tools",
  user: env["NATS_USER"] ?? "",
  password: env["NATS_PASSWORD"] ?? "",
  inboxPrefix: env["NATS_INBOX_PREFIX"] ?? "_INBOX",
});
await openTools(scope, bus, env);
process.stdout.write("ready\n");
process.once("SIGTERM", () => void scope.close().then(() => process.exit(0)));
