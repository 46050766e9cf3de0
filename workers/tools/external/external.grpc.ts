/** The gRPC client of tool handlers: one call, to an address that was judged (aiOS tools, 1.1 handler_address). */
import { Client, credentials, Metadata, status, type ServiceError } from "@grpc/grpc-js";
import { BeamlineError, codeOfGrpcStatus } from "../../../contracts/errors.ts";
import { ExecuteRequest, ExecuteResponse } from "../../../contracts/gen/aios/tools.ts";
import type { Destination } from "../../../runtime/egress.ts";
import { formatAddress } from "../../../runtime/setting.ts";

const PATH = "/aios.tools.ToolRegistry/Execute";

export interface ExecuteAtOptions {
  readonly timeoutMs: number;
  readonly signal: AbortSignal;
  readonly tls: boolean;
  readonly traceparent: string;
  /** Largest answer, bytes. */
  readonly maxBytes: number;
}

/**
 * Calls Execute at exactly the judged address, under the name that was asked for. Throws `unavailable`, `deadline_exceeded`, `cancelled`, or
 * what the handler answered.
 */
export async function executeAt(
  { host, address, port }: Destination,
  request: ExecuteRequest,
  options: ExecuteAtOptions,
): Promise<ExecuteResponse> {
  const { tls, maxBytes, timeoutMs, signal, traceparent } = options;
  const metadata = new Metadata();
  if (traceparent !== "") metadata.set("traceparent", traceparent);
  const target = `${address.includes(":") ? "ipv6" : "ipv4"}:${formatAddress({ host: address, port })}`;
  const client = new Client(target, tls ? credentials.createSsl() : credentials.createInsecure(), {
    "grpc.default_authority": formatAddress({ host, port }),
    ...(tls && { "grpc.ssl_target_name_override": host }),
    "grpc.max_receive_message_length": maxBytes + 65_536,
    "grpc.enable_http_proxy": 0,
    "grpc.service_config_disable_resolution": 1,
  });
  try {
    return await new Promise<ExecuteResponse>((resolve, reject) => {
      const call = client.makeUnaryRequest<ExecuteRequest, ExecuteResponse>(
        PATH,
        (message) => Buffer.from(ExecuteRequest.encode(message).finish()),
        (bytes) => ExecuteResponse.decode(bytes),
        request,
        metadata,
        { deadline: Date.now() + timeoutMs },
        (error, answer) => {
          signal.removeEventListener("abort", cancel);
          if (error !== null) reject(translated(error));
          else if (answer === undefined) reject(new BeamlineError("internal", "the handler answered nothing"));
          else resolve(answer);
        },
      );
      const cancel = (): void => call.cancel();
      if (signal.aborted) cancel();
      else signal.addEventListener("abort", cancel, { once: true });
    });
  } finally {
    client.close();
  }
}

function translated(error: ServiceError): BeamlineError {
  if (error.code === status.DEADLINE_EXCEEDED) return new BeamlineError("deadline_exceeded", "no answer in time");
  return new BeamlineError(codeOfGrpcStatus(error.code), error.details === "" ? error.message : error.details, {
    cause: error,
  });
}
