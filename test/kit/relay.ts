/** A cable to a server on this machine, to be cut. */
import { connect as connectSocket, createServer, type AddressInfo, type Socket } from "node:net";

/** Passes bytes on to the server, until it is cut: then nothing comes or goes, and no end is told, as when a host is gone. */
export async function relayed(port: number): Promise<AsyncDisposable & { readonly port: number; cut(): void }> {
  const cables = new Set<{ from: Socket; to: Socket }>();
  const relay = createServer((from) => {
    const to = connectSocket(port, "127.0.0.1");
    const cable = { from, to };
    cables.add(cable);
    for (const socket of [from, to]) socket.on("error", () => cables.delete(cable));
    from.pipe(to).pipe(from);
  });
  await new Promise<void>((resolve) => relay.listen(0, "127.0.0.1", resolve));
  return {
    port: (relay.address() as AddressInfo).port,
    cut() {
      for (const { from, to } of cables) {
        from.unpipe(to).pause();
        to.unpipe(from).pause();
      }
    },
    async [Symbol.asyncDispose]() {
      for (const { from, to } of cables) for (const socket of [from, to]) socket.destroy();
      await new Promise<unknown>((resolve) => relay.close(resolve));
    },
  };
}
