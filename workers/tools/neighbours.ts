/** What of the product answers on a port, as this worker knows it: for self.health. */
import type { Environment } from "../../runtime/config.ts";
import { parseAddress } from "../../runtime/setting.ts";

export interface Neighbour {
  readonly name: string;
  readonly host: string;
  readonly port: number;
}

const REDIS_PORT = 6_379;

/**
 * The servers this worker uses, and the edge where its addresses are in the environment: elsewhere it may run on any host.
 * @param nats `host:port` of the server in use
 */
export function neighbours(nats: string, redisUrl: string, env: Environment): Neighbour[] {
  const redis = URL.parse(redisUrl);
  const redisHost = redis === null || redis.protocol === "unix:" ? "" : redis.hostname.replace(/^\[(.*)\]$/, "$1");
  const at = (name: string, text: string | undefined): Neighbour[] => {
    const address = text === undefined ? undefined : parseAddress(text);
    return address === undefined ? [] : [{ name, ...address }];
  };
  return [
    ...at("edge-grpc", env["BEAMLINE_GRPC_ADDR"]),
    ...at("edge-http", env["BEAMLINE_HTTP_ADDR"]),
    ...at("nats", nats),
    ...(redisHost === "" ? [] : [{ name: "redis", host: redisHost, port: Number(redis?.port) || REDIS_PORT }]),
  ];
}
