/** A collector that counts the spans it is sent and forgets them. */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { servePeer } from "../kit/peer.ts";

interface Export {
  readonly resourceSpans?: readonly { readonly scopeSpans?: readonly { readonly spans?: readonly unknown[] }[] }[];
}

let spans = 0;
const server = createServer((request, response) => {
  const chunks: Buffer[] = [];
  request.on("data", (chunk: Buffer) => chunks.push(chunk));
  request.on("end", () => {
    const { resourceSpans = [] } = JSON.parse(Buffer.concat(chunks).toString("utf8")) as Export;
    const lists = resourceSpans.flatMap(({ scopeSpans = [] }) => scopeSpans.map((scope) => scope.spans ?? []));
    spans += lists.reduce((sum, list) => sum + list.length, 0);
    response.setHeader("content-type", "application/json").end("{}");
  });
});
server.listen(0, "127.0.0.1", () => {
  const { port } = server.address() as AddressInfo;
  servePeer({ url: `http://127.0.0.1:${port}` }, () => Promise.resolve(spans));
});
