/**
 * Many publishes as one command to the server.
 *
 * The library encodes, checks and queues each publish by itself; at tens of thousands a second that is a good part of what a call
 * costs. Here all messages of a tick become one text, encoded once. `sendCommand` is the library's own way to hand over a
 * command, and does what it always does while the connection is away.
 */
import type { NatsConnection } from "@nats-io/transport-node";
import type { Headers } from "../contracts/headers.ts";
import { headerText, toNats } from "./headers.ts";

export interface Outgoing {
  readonly subject: string;
  readonly data: string | Uint8Array;
  readonly headers: Headers | undefined;
  readonly reply: string | undefined;
}

interface WithProtocol {
  readonly protocol?: { sendCommand?(command: Uint8Array): void };
}

export function publishAll(nc: NatsConnection, batch: readonly Outgoing[]): void {
  const { protocol } = nc as unknown as WithProtocol;
  let text = "";
  const handOver = (): void => {
    if (text !== "") protocol?.sendCommand?.(Buffer.from(text, "utf8"));
    text = "";
  };
  for (const message of batch) {
    if (typeof message.data === "string" && protocol?.sendCommand !== undefined)
      text += commandOf(message, message.data);
    else {
      handOver(); // bytes go the library's way, in their turn
      const { subject, data, headers, reply } = message;
      nc.publish(subject, data, {
        ...(headers !== undefined && { headers: toNats(headers) }),
        ...(reply !== undefined && { reply }),
      });
    }
  }
  handOver();
}

function commandOf({ subject, headers, reply }: Outgoing, data: string): string {
  const size = Buffer.byteLength(data);
  const to = reply === undefined ? subject : `${subject} ${reply}`;
  if (headers === undefined) return `PUB ${to} ${size}\r\n${data}\r\n`;
  const block = headerText(headers);
  const blockSize = Buffer.byteLength(block);
  return `HPUB ${to} ${blockSize} ${blockSize + size}\r\n${block}${data}\r\n`;
}
