/** A collector that counts the spans it is sent and forgets them. */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { spansIn } from "../../test/kit/otlp.ts";
import { servePeer } from "../kit/peer.ts";

let spans = 0;
const server = createServer((request, response) => {
  const chunks: Buffer[] = [];
  request.on("data", (chunk: Buffer) => chunks.push(chunk));
  request.on("end", () => {
    spans += spansIn(Buffer.concat(chunks), request.headers["content-type"] ?? "").length;
    response.end();
  });
});
server.listen(0, "127.0.0.1", () => {
  const { port } = server.address() as AddressInfo;
  servePeer({ url: `http://127.0.0.1:${port}` }, () => Promise.resolve(spans));
});
