/** `beamline decide`: one routing decision, asked over the bus as any NATS client would. */
import { randomUUID } from "node:crypto";
import type { Command } from "commander";
import { invalidArgument } from "../contracts/errors.ts";
import { routes } from "../contracts/routes.ts";
import { outputOf } from "./output.ts";
import { connectStack } from "./stack.ts";

interface DecideOptions {
  readonly tenant: string;
  readonly policy?: string;
  readonly type: string;
  readonly context: Readonly<Record<string, string>>;
}

export function decideCommand(program: Command): void {
  program
    .command("decide")
    .description("Ask the router which provider a message goes to.")
    .argument("[payload]", "payload of the message, any text", "{}")
    .option("-t, --tenant <id>", "tenant the message belongs to", "default")
    .option("-p, --policy <id>", "policy to decide by; the tenant's default without it")
    .option("--type <type>", "message type", "chat")
    .option("-c, --context <key=value>", "context entry, repeatable", pair, {})
    .action(async (payload: string, options: DecideOptions, command: Command) => {
      const out = outputOf(command);
      const route = routes.find((one) => one.path === "/beamline.flow.v1.Router/Decide");
      if (route === undefined) throw new Error("the contract has no Decide");
      await using stack = await connectStack();
      const request = {
        message: { message_id: randomUUID(), tenant_id: options.tenant, message_type: options.type, payload },
        ...(options.policy !== undefined && { policy_id: options.policy }),
        context: options.context,
      };
      const decision = await stack.caller.request(route.subject, request, {
        timeoutMs: route.timeoutMs,
        worker: route.worker,
      });
      out.record(decision as Readonly<Record<string, unknown>>);
    });
}

function pair(text: string, known: Readonly<Record<string, string>>): Record<string, string> {
  const at = text.indexOf("=");
  if (at < 1) throw invalidArgument("--context", `wants key=value, not ${text}`);
  return { ...known, [text.slice(0, at)]: text.slice(at + 1) };
}
