/** The gRPC listener: every service of every proto, registered in a loop. */
import {
  Server,
  ServerCredentials,
  ServerInterceptingCall,
  status,
  type handleServerStreamingCall,
  type ServerInterceptor,
  type ServerWritableStream,
  type ServiceDefinition as GrpcService,
  type UntypedServiceImplementation,
} from "@grpc/grpc-js";
import { loadFileDescriptorSetFromBuffer } from "@grpc/proto-loader";
import { ReflectionService } from "@grpc/reflection";
import { HealthImplementation } from "grpc-health-check";
import { descriptorSet } from "../contracts/codec.ts";
import { routeOf, services, type Route, type ServiceDefinition } from "../contracts/routes.ts";
import { cannotListen } from "../runtime/listening.ts";
import { bearerOf } from "./auth.ts";
import { events, streamed, unary, type Forwarding } from "./forward.ts";
import type { Tokens } from "./tokens.ts";

export interface GrpcOptions {
  /** `host:port`; port 0 takes a free one. */
  readonly address: string;
  readonly maxMessageBytes: number;
  readonly keepaliveMs: number;
  readonly keepaliveTimeoutMs: number;
  /** 0 never asks a client to reconnect. */
  readonly maxConnectionAgeMs: number;
  readonly maxConnectionAgeGraceMs: number;
  /** What it is served with (`tls.ts`); plain text without. */
  readonly credentials?: ServerCredentials | undefined;
}

export class GrpcEdge {
  readonly #server: Server;
  readonly #health = new HealthImplementation(
    Object.fromEntries(["", ...services.map((one) => one.fullName)].map((name) => [name, "NOT_SERVING"])),
  );
  readonly #closing = new AbortController();
  readonly port: number;

  private constructor(server: Server, forwarding: Forwarding, port: number) {
    this.#server = server;
    this.port = port;
    const closing = this.#closing.signal;
    for (const service of services)
      server.addService(definitionOf(service), implementationOf(service, forwarding, closing));
    serveHealth(server, this.#health, closing);
    new ReflectionService(loadFileDescriptorSetFromBuffer(Buffer.from(descriptorSet))).addToServer(server);
  }

  /** Binds and serves. Throws as `cannotListen`. */
  static async open(options: GrpcOptions, forwarding: Forwarding): Promise<GrpcEdge> {
    const server = new Server({
      "grpc.max_receive_message_length": options.maxMessageBytes,
      "grpc.max_send_message_length": options.maxMessageBytes,
      // Nobody reads channelz here; /metrics says what it would, and it costs on every call.
      "grpc.enable_channelz": 0,
      "grpc.keepalive_time_ms": options.keepaliveMs,
      "grpc.keepalive_timeout_ms": options.keepaliveTimeoutMs,
      ...(forwarding.auth.tokens !== undefined && { interceptors: [checkingTokens(forwarding.auth.tokens)] }),
      ...(options.maxConnectionAgeMs > 0 && {
        "grpc.max_connection_age_ms": options.maxConnectionAgeMs,
        "grpc.max_connection_age_grace_ms": options.maxConnectionAgeGraceMs,
      }),
    });
    const { credentials = ServerCredentials.createInsecure() } = options;
    const port = await new Promise<number>((resolve, reject) => {
      server.bindAsync(options.address, credentials, (error, bound) => {
        if (error === null) resolve(bound);
        else reject(cannotListen("BEAMLINE_GRPC_ADDR", options.address, error));
      });
    });
    return new GrpcEdge(server, forwarding, port);
  }

  /** Health of a service as grpc.health.v1 reports it; the empty name is the edge itself. */
  setServing(service: string, serving: boolean): void {
    this.#health.setStatus(service, serving ? "SERVING" : "NOT_SERVING");
  }

  /**
   * Refuses new calls, ends what has no end of its own (watches of health, events of a log), lets the other running calls end until the
   * deadline (epoch milliseconds), then cuts the rest off.
   */
  async stop(deadline: number): Promise<void> {
    for (const service of ["", ...services.map((one) => one.fullName)]) this.setServing(service, false);
    this.#closing.abort();
    await new Promise<void>((resolve) => {
      const timer = setTimeout(
        () => {
          this.#server.forceShutdown();
          resolve();
        },
        Math.max(0, deadline - Date.now()),
      );
      this.#server.tryShutdown(() => {
        clearTimeout(timer);
        resolve();
      });
    });
  }
}

/** Health, whose watches end when the edge closes: the library's own would hold its shutdown up until they are cut off. */
function serveHealth(server: Server, health: HealthImplementation, closing: AbortSignal): void {
  const watches = new Set<ServerWritableStream<unknown, unknown>>();
  closing.addEventListener("abort", () => {
    for (const call of watches) call.emit("error", { code: status.UNAVAILABLE, details: "this edge is closing" });
  });
  const addService = (service: GrpcService, methods: UntypedServiceImplementation): void => {
    const watch = methods["watch"] as handleServerStreamingCall<unknown, unknown>;
    server.addService(service, {
      ...methods,
      watch(call: ServerWritableStream<unknown, unknown>) {
        watches.add(call);
        call.once("cancelled", () => watches.delete(call));
        watch(call);
      },
    });
  };
  health.addToServer({ addService });
}

/** Holds a call up until its token has been checked; what came of it is asked where the call is served. */
function checkingTokens(tokens: Tokens): ServerInterceptor {
  return (_method, call) =>
    new ServerInterceptingCall(call, {
      start: (next) =>
        next({
          onReceiveMetadata(metadata, go) {
            const [authorization] = metadata.get("authorization");
            const checked = tokens.prepare(typeof authorization === "string" ? bearerOf(authorization) : undefined);
            if (checked === undefined) go(metadata);
            else void checked.then(() => go(metadata));
          },
        }),
    });
}

/** Bytes stay bytes: the forwarding does the coding, where it can say what was wrong. */
const asIs = (bytes: Buffer): Buffer => bytes;

function definitionOf(service: ServiceDefinition): GrpcService {
  return Object.fromEntries(
    Object.entries(service.methods).map(([key, method]) => [
      key,
      {
        path: routeOf(service, method).path,
        requestStream: method.requestStream,
        responseStream: method.responseStream,
        requestSerialize: asIs,
        requestDeserialize: asIs,
        responseSerialize: asIs,
        responseDeserialize: asIs,
      },
    ]),
  );
}

function implementationOf(
  service: ServiceDefinition,
  forwarding: Forwarding,
  closing: AbortSignal,
): UntypedServiceImplementation {
  return Object.fromEntries(
    Object.entries(service.methods).map(([key, method]) => [
      key,
      byKind(routeOf(service, method), forwarding, closing),
    ]),
  );
}

function byKind(route: Route, forwarding: Forwarding, closing: AbortSignal): UntypedServiceImplementation[string] {
  switch (route.kind) {
    case "request":
      return unary(route, forwarding);
    case "stream":
      return streamed(route, forwarding);
    case "events":
      return events(route, forwarding, closing);
  }
}
