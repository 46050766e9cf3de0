/** The standard gRPC services every server has, called as their tools call them. */
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import {
  credentials,
  loadPackageDefinition,
  type ClientDuplexStream,
  type ClientReadableStream,
  type ServiceClientConstructor,
  type ServiceError,
} from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";
import { protoPath as healthProto } from "grpc-health-check";

const reflectionProto = join(
  dirname(createRequire(import.meta.url).resolve("@grpc/reflection")),
  "../proto/grpc/reflection/v1/reflection.proto",
);

function clientOf(proto: string, service: string, address: string): InstanceType<ServiceClientConstructor> {
  const loaded = loadPackageDefinition(loadSync(proto, { enums: String, keepCase: true })) as unknown as Record<
    string,
    unknown
  >;
  const Client = service
    .split(".")
    .reduce<unknown>((at, name) => (at as Record<string, unknown>)[name], loaded) as ServiceClientConstructor;
  return new Client(address, credentials.createInsecure());
}

/** What grpc.health.v1 says of a service; the empty name is the server itself. */
export async function health(address: string, service: string): Promise<string> {
  const client = clientOf(healthProto, "grpc.health.v1.Health", address);
  try {
    return await new Promise((resolve, reject) => {
      client["Check"]?.(
        { service },
        { deadline: Date.now() + 5_000 },
        (error: ServiceError | null, reply: { status: string }) =>
          error === null ? resolve(reply.status) : reject(error),
      );
    });
  } finally {
    client.close();
  }
}

/** A watch of a service's health: what it said, and with which status it ended. */
export function watchHealth(
  address: string,
  service: string,
): { readonly statuses: readonly string[]; readonly ended: Promise<number> } {
  const client = clientOf(healthProto, "grpc.health.v1.Health", address);
  const statuses: string[] = [];
  const call = client["Watch"]?.({ service }) as ClientReadableStream<{ status: string }>;
  call.on("data", ({ status }: { status: string }) => statuses.push(status));
  call.on("error", () => client.close());
  return {
    statuses,
    ended: new Promise((resolve) => call.on("status", ({ code }: { code: number }) => resolve(code))),
  };
}

interface ReflectionReply {
  readonly list_services_response?: { readonly service: readonly { readonly name: string }[] };
}

/** The services a server lists by reflection. */
export async function reflectedServices(address: string): Promise<string[]> {
  const client = clientOf(reflectionProto, "grpc.reflection.v1.ServerReflection", address);
  try {
    const call = client["ServerReflectionInfo"]?.() as ClientDuplexStream<object, ReflectionReply>;
    call.write({ list_services: "" });
    call.end();
    const names: string[] = [];
    for await (const reply of call)
      names.push(...((reply as ReflectionReply).list_services_response?.service ?? []).map((one) => one.name));
    return names;
  } finally {
    client.close();
  }
}
