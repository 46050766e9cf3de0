/** An embedding endpoint that costs nothing: what a search costs beside its embedding call is measured with it. */
import { createServer } from "node:http";
import { text } from "node:stream/consumers";
import { serveOnly } from "../kit/peer.ts";
import { stubVector } from "../kit/stubvector.ts";

const server = createServer((request, response) => {
  void text(request).then((body) => {
    const { input } = JSON.parse(body) as { input: string[] };
    response.setHeader("content-type", "application/json");
    response.end(
      JSON.stringify({ data: input.map((one, index) => ({ index, embedding: Array.from(stubVector(one)) })) }),
    );
  });
});
server.listen(0, "127.0.0.1", () => {
  const address = server.address();
  serveOnly({ url: `http://127.0.0.1:${typeof address === "object" ? address?.port : 0}/v1` });
});
