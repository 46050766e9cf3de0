/** What is decided in the benchmarks: requests of about 400 bytes, as the contract's sample has them, and where they go. */
import { codecOf, opaque } from "../../contracts/codec.ts";
import { RouteRequest } from "../../contracts/gen/beamline/flow/v1/flow.ts";
import { routes } from "../../contracts/routes.ts";
import type { Stack } from "../case.ts";

const found = routes.find((route) => route.path === "/beamline.flow.v1.Router/Decide");
if (found === undefined) throw new Error("the contract has no Decide");
export const decideRoute = found;

function requestOf(index: number): RouteRequest {
  const id = index.toString(16).padStart(12, "0");
  return RouteRequest.fromPartial({
    message: {
      message_id: `0193a7c2-5b1e-7c3a-9f00-${id}`,
      tenant_id: "acme",
      trace_id: "4bf92f3577b34da6a3ce929d0e0e4736",
      message_type: "chat",
      payload: Buffer.from(
        JSON.stringify({
          model: "gpt-4o",
          prompt: "Summarise the quarterly report in three sentences.",
          max_tokens: 256,
        }),
      ),
      metadata: { source: "bench", region: "eu-central-1" },
      timestamp_ms: 1_735_689_600_000n,
    },
    policy_id: "default",
    context: { user_id: "user-42", session_id: "session-0000-1111-2222", priority: "normal" },
  });
}

/** Different messages, so that nothing is answered from what an earlier one left. */
const requests = Array.from({ length: 1_000 }, (_, index) => requestOf(index));

/** As protobuf. */
export const decideBytes: readonly Uint8Array[] = requests.map((request) => RouteRequest.encode(request).finish());

const codec = codecOf(opaque(decideRoute.method.requestType));

/** As JSON text. */
export const decideTexts: readonly string[] = requests.map((request) => JSON.stringify(codec.toJson(request)));

/** Decides the edge has answered well so far. */
export async function decided(stack: Stack): Promise<number> {
  const text = await (await fetch(`${stack.http}/metrics`)).text();
  const line = text
    .split("\n")
    .find(
      (one) =>
        one.startsWith("grpc_server_handled_total{") && one.includes('"Decide"') && one.includes('grpc_code="0"'),
    );
  return Number(/\}\s+(\d+)/.exec(line ?? "")?.[1] ?? 0);
}
