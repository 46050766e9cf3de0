/** A gRPC client as any user would have one: grpc-js on the generated definitions, calls as promises and async iterables. */
import {
  credentials,
  makeGenericClientConstructor,
  Metadata,
  type ChannelCredentials,
  type ClientReadableStream,
  type ServiceError,
} from "@grpc/grpc-js";
import { opaque } from "../../contracts/codec.ts";
import { routeOf, type ServiceDefinition } from "../../contracts/routes.ts";

type Partials<S extends ServiceDefinition, K extends keyof S["methods"]> = Parameters<
  S["methods"][K]["requestType"]["fromPartial"]
>[0];
type Reply<S extends ServiceDefinition, K extends keyof S["methods"]> = ReturnType<
  S["methods"][K]["responseType"]["decode"]
>;

export interface CallSettings {
  readonly metadata?: Readonly<Record<string, string>>;
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
}

export interface GrpcClient<S extends ServiceDefinition> extends Disposable {
  call<K extends keyof S["methods"] & string>(
    method: K,
    request: Partials<S, K>,
    settings?: CallSettings,
  ): Promise<Reply<S, K>>;
  stream<K extends keyof S["methods"] & string>(
    method: K,
    request: Partials<S, K>,
    settings?: CallSettings,
  ): AsyncIterable<Reply<S, K>>;
  /** Sends bytes as they are, for requests no client would make. */
  raw(method: string, bytes: Uint8Array, settings?: CallSettings): Promise<Uint8Array>;
}

/** The settings default to a deadline of 10 s: no test hangs on a call. */
export function grpcClient<S extends ServiceDefinition>(
  service: S,
  address: string,
  channel: ChannelCredentials = credentials.createInsecure(),
): GrpcClient<S> {
  const asIs = (bytes: Buffer): Buffer => bytes;
  const definition = Object.fromEntries(
    Object.entries(service.methods).map(([key, method]) => [
      key,
      {
        path: routeOf(service, method).path,
        requestStream: false,
        responseStream: method.responseStream,
        requestSerialize: asIs,
        requestDeserialize: asIs,
        responseSerialize: asIs,
        responseDeserialize: asIs,
      },
    ]),
  );
  const Client = makeGenericClientConstructor(definition, service.name);
  const client = new Client(address, channel);
  const methods = client as unknown as Record<string, (...args: unknown[]) => unknown>;

  const settle = (settings: CallSettings | undefined): [Metadata, { deadline: number }] => {
    const metadata = new Metadata();
    for (const [key, value] of Object.entries(settings?.metadata ?? {})) metadata.set(key, value);
    return [metadata, { deadline: Date.now() + (settings?.timeoutMs ?? 10_000) }];
  };
  const typesOf = (method: string): { request: ReturnType<typeof opaque>; response: ReturnType<typeof opaque> } => {
    const found = service.methods[method];
    if (found === undefined) throw new Error(`${service.fullName} has no ${method}`);
    return { request: opaque(found.requestType), response: opaque(found.responseType) };
  };
  const raw = (method: string, bytes: Uint8Array, settings?: CallSettings): Promise<Uint8Array> =>
    new Promise((resolve, reject) => {
      const [metadata, options] = settle(settings);
      const call = methods[method]?.call(
        client,
        Buffer.from(bytes),
        metadata,
        options,
        (error: ServiceError | null, reply?: Buffer) => {
          if (error === null && reply !== undefined) resolve(reply);
          else reject(error ?? new Error("no reply"));
        },
      ) as { cancel(): void };
      settings?.signal?.addEventListener("abort", () => call.cancel(), { once: true });
    });
  return {
    raw,
    async call(method, request, settings) {
      const { request: requestType, response } = typesOf(method);
      const bytes = requestType.encode(requestType.fromPartial(request)).finish();
      return response.decode(await raw(method, bytes, settings)) as never;
    },
    async *stream(method, request, settings) {
      const { request: requestType, response } = typesOf(method);
      const bytes = requestType.encode(requestType.fromPartial(request)).finish();
      const call = methods[method]?.call(
        client,
        Buffer.from(bytes),
        ...settle(settings),
      ) as ClientReadableStream<Buffer>;
      settings?.signal?.addEventListener("abort", () => call.cancel(), { once: true });
      try {
        for await (const reply of call) yield response.decode(reply as Buffer) as never;
      } finally {
        call.cancel();
      }
    },
    [Symbol.dispose]: () => client.close(),
  };
}
