/**
 * Headers between plain data and the client library.
 *
 * The library's own header map validates and canonicalises each name on every append; on the request path that costs more than
 * the rest of a publish. This file writes the header block directly and reads it straight from the message, and is the one
 * place that knows how (`raw headers` test: it agrees with the library in both directions).
 */
import { isUtf8 } from "node:buffer";
import type { Msg, MsgHdrs } from "@nats-io/transport-node";
import { invalidArgument } from "../contracts/errors.ts";
import type { Headers } from "../contracts/headers.ts";

/** The header block as it goes over the wire. */
export function encodeHeaders(headers: Headers): Uint8Array {
  return Buffer.from(headerText(headers), "utf8");
}

export function headerText(headers: Headers): string {
  let text = "NATS/1.0\r\n";
  for (const name in headers) {
    const value = headers[name];
    if (value !== undefined && value !== "") text += `${name}: ${singleLine(value)}\r\n`;
  }
  return `${text}\r\n`;
}

const breaks = /[\r\n]/;

/** A value with a line break would smuggle in further headers. */
function singleLine(value: string): string {
  return breaks.test(value) ? value.replaceAll(/[\r\n]+/g, " ") : value;
}

/** For the `headers` option of a publish. Only `encode` is ever called on it. */
export function toNats(headers: Headers): MsgHdrs {
  return { encode: () => encodeHeaders(headers) } as unknown as MsgHdrs;
}

interface RawMessage {
  readonly _msg: { readonly hdr: number };
  readonly _rdata: Uint8Array;
}

const none: Headers = Object.freeze({});

/** The headers of a message, first value per name, names as sent. A status line (`NATS/1.0 503`) is under `status`. */
export function fromNats(message: Msg): Headers {
  const raw = message as unknown as RawMessage;
  const length = raw._msg.hdr;
  if (length <= 0) return none;
  const block = raw._rdata;
  const text = Buffer.from(block.buffer, block.byteOffset, length).toString("utf8");
  const headers: Record<string, string> = {};
  let start = text.indexOf("\r\n");
  if (start > 8) headers["status"] = text.slice(8, start).trim();
  start += 2;
  for (let end = text.indexOf("\r\n", start); end > start; start = end + 2, end = text.indexOf("\r\n", start)) {
    const colon = text.indexOf(":", start);
    if (colon < 0 || colon > end) continue;
    const name = text.slice(start, colon);
    headers[name] ??= text.slice(colon + 1, end).trim();
  }
  return headers;
}

/** Whether a message is the server's word that nobody listens. */
export function isNoResponders(message: Msg): boolean {
  const raw = message as unknown as RawMessage;
  return (
    raw._msg.hdr > 0 && raw._rdata.length === raw._msg.hdr && fromNats(message)["status"]?.startsWith("503") === true
  );
}

/**
 * The payload of a request as text. Bytes that are not UTF-8 are refused: replaced characters would be another request.
 * Throws `invalid_argument`.
 */
export function requestTextOf(message: Msg): string {
  const text = textOf(message);
  if (text.includes("\uFFFD") && !isUtf8(message.data)) throw invalidArgument("body", "is not valid UTF-8");
  return text;
}

/** The payload as text, without an intermediate copy. */
export function textOf(message: Msg): string {
  const { data } = message;
  // What arrived in one piece is a part of the socket's own buffer: a view of the view would cost more than the text.
  const bytes = Buffer.isBuffer(data) ? data : Buffer.from(data.buffer, data.byteOffset, data.byteLength);
  return bytes.toString("utf8");
}
