import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { assert, constantFrom, nat, property } from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { refusedBecause } from "./egress.address.ts";
import { createEgress, type Egress } from "./egress.ts";

let server: Server;
let base: string;
let port: number;
const seen: { url: string; authorization: string | undefined }[] = [];
const open: Egress[] = [];

beforeAll(async () => {
  server = createServer((request, response) => {
    seen.push({ url: request.url ?? "", authorization: request.headers.authorization });
    if (request.url === "/hang") return;
    if (request.url === "/big") response.write("x".repeat(5_000));
    const away = "http://169.254.169.254/latest/meta-data/";
    if (request.url === "/away") response.writeHead(302, { location: away });
    if (request.url === "/next") response.writeHead(302, { location: "/ok" });
    response.end(`${request.method} ${request.url}`);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  port = (server.address() as AddressInfo).port;
  base = `http://127.0.0.1:${port}`;
});

afterAll(async () => {
  await Promise.all(open.map((egress) => egress.close()));
  await new Promise((resolve) => {
    server.closeAllConnections();
    server.close(resolve);
  });
});

function egress(options: Parameters<typeof createEgress>[0] = {}): Egress {
  const made = createEgress(options);
  open.push(made);
  return made;
}

describe("addresses", () => {
  test.each([
    ["127.0.0.1", "loopback"],
    ["127.9.9.9", "loopback"],
    ["10.0.0.1", "private"],
    ["172.16.5.4", "private"],
    ["192.168.1.1", "private"],
    ["169.254.169.254", "linkLocal"],
    ["100.64.0.1", "carrierGradeNat"],
    ["0.0.0.0", "unspecified"],
    ["224.0.0.1", "multicast"],
    ["255.255.255.255", "broadcast"],
    ["198.18.0.1", "reserved"],
    ["240.0.0.1", "reserved"],
    ["::1", "loopback"],
    ["::", "unspecified"],
    ["fe80::1", "linkLocal"],
    ["fd00::1", "uniqueLocal"],
    ["fd00:ec2::254", "uniqueLocal"],
    ["ff02::1", "multicast"],
    ["::ffff:127.0.0.1", "loopback"],
    ["::ffff:169.254.169.254", "linkLocal"],
    ["64:ff9b::7f00:1", "rfc6052"],
    ["64:ff9b:1::a9fe:a9fe", "rfc6052"],
    ["2002:7f00:1::", "6to4"],
    ["2001:0:7f00:1::", "teredo"],
    ["::127.0.0.1", "loopback"],
    ["::7f00:1", "outside the public address space"],
    ["fec0::1", "deprecatedSiteLocal"],
    ["2001:db8::1", "reserved"],
    ["4000::1", "outside the public address space"],
    ["nonsense", "not an IP address"],
  ])("%s is %s", (address, reason) => expect(refusedBecause(address)).toBe(reason));

  test.each(["1.1.1.1", "93.184.216.34", "2606:4700::1111", "::ffff:1.1.1.1"])("%s is public", (address) =>
    expect(refusedBecause(address)).toBeUndefined(),
  );

  test("every address of the private networks is refused, also mapped into IPv6", () => {
    assert(
      property(constantFrom("10", "127"), nat(255), nat(255), nat(255), (net, b, c, d) => {
        const address = `${net}.${b}.${c}.${d}`;
        return refusedBecause(address) !== undefined && refusedBecause(`::ffff:${address}`) !== undefined;
      }),
    );
  });
});

describe("fetch", () => {
  test.each(["/ok"])("refuses the machine itself in every spelling", async (path) => {
    const out = egress();
    const before = seen.length;
    for (const host of [
      "127.0.0.1",
      "2130706433",
      "0x7f.1",
      "0177.0.0.1",
      "[::1]",
      "[::ffff:127.0.0.1]",
      "localhost",
      "0",
    ]) {
      await expect(out.fetch(`http://${host}:${port}${path}`)).rejects.toMatchObject({
        code: "permission_denied",
        field: "url",
      });
    }
    expect(seen.length).toBe(before);
  });

  test("refuses a name when any of its addresses is refused", async () => {
    const out = egress({ resolve: async () => ["1.1.1.1", "10.0.0.1"] });
    await expect(out.fetch("http://mixed.example/")).rejects.toMatchObject({ code: "permission_denied" });
  });

  test("a name that changes its address after the check is checked again when dialled", async () => {
    const answers = [["1.1.1.1"], ["127.0.0.1"]];
    const out = egress({ resolve: async () => answers.shift() ?? ["127.0.0.1"] });
    const before = seen.length;
    await expect(out.fetch(`http://rebind.example:${port}/ok`)).rejects.toMatchObject({ code: "permission_denied" });
    expect(seen.length).toBe(before);
  });

  test("dials the judged address, under the name asked for", async () => {
    const out = egress({ allow: [`named.example:${port}`], resolve: async () => ["127.0.0.1"] });
    expect((await out.fetch(`http://named.example:${port}/ok`)).body.toString()).toBe("GET /ok");
    await expect(out.fetch(`http://other.example:${port}/ok`)).rejects.toMatchObject({ code: "permission_denied" });
  });

  test("an exception for one port is none for another; a network covers its addresses", async () => {
    await expect(egress({ allow: ["127.0.0.1:1"] }).fetch(`${base}/ok`)).rejects.toMatchObject({
      code: "permission_denied",
    });
    expect((await egress({ allow: ["127.0.0.0/8"] }).fetch(`${base}/ok`)).status).toBe(200);
  });

  test("gives a redirect as it is, follows it when asked, and judges where it leads", async () => {
    const out = egress({ allow: [`127.0.0.1:${port}`] });
    expect((await out.fetch(`${base}/next`)).status).toBe(302);
    const followed = await out.fetch(`${base}/next`, { maxRedirects: 1 });
    expect([followed.status, followed.url]).toEqual([200, `${base}/ok`]);
    await expect(out.fetch(`${base}/away`, { maxRedirects: 3 })).rejects.toMatchObject({ code: "permission_denied" });
  });

  test("cuts or refuses what is too large", async () => {
    const out = egress({ allow: ["127.0.0.1"] });
    const cut = await out.fetch(`${base}/big`, { maxBytes: 100 });
    expect([cut.body.length, cut.truncated]).toEqual([100, true]);
    await expect(out.fetch(`${base}/big`, { maxBytes: 100, overflow: "fail" })).rejects.toMatchObject({
      code: "message_too_large",
    });
  });

  test("gives up at the deadline and when cancelled", async () => {
    const out = egress({ allow: ["127.0.0.1"] });
    await expect(out.fetch(`${base}/hang`, { timeoutMs: 50 })).rejects.toMatchObject({ code: "deadline_exceeded" });
    await expect(out.fetch(`${base}/hang`, { signal: AbortSignal.abort() })).rejects.toMatchObject({
      code: "cancelled",
    });
  });

  test.each(["ftp://a/b", "file:///etc/passwd", "gopher://a", "nonsense", "http://user:pw@1.1.1.1/"])(
    "refuses %s",
    async (url) => {
      await expect(egress().fetch(url)).rejects.toMatchObject({ code: "invalid_argument", field: "url" });
    },
  );

  test("nobody listening is unavailable and names the origin", async () => {
    await expect(egress({ allow: ["127.0.0.1:1"] }).fetch("http://127.0.0.1:1/a?secret=1")).rejects.toMatchObject({
      code: "unavailable",
      message: expect.not.stringContaining("secret") as string,
    });
  });
});

describe("checkAddress", () => {
  test.each([
    "127.0.0.1:50051",
    "localhost:1",
    "http://169.254.169.254:80",
    "dns:///127.0.0.1:1",
    "[::1]:5",
    "2130706433:80",
    "ipv4:10.0.0.1:1",
  ])("refuses %s", async (target) => {
    await expect(egress().checkAddress(target)).rejects.toMatchObject({ code: "permission_denied" });
  });

  test.each(["nohost", "a:0", "a:99999", "a:b", "", "host:1/path"])("is no address: %s", async (target) => {
    await expect(egress().checkAddress(target)).rejects.toMatchObject({ code: "invalid_argument" });
  });

  test("gives the address to dial", async () => {
    const out = egress({ allow: ["handler.example:50052"], resolve: async () => ["127.0.0.1"] });
    expect(await out.checkAddress("dns:///handler.example:50052")).toEqual({
      host: "handler.example",
      address: "127.0.0.1",
      port: 50052,
    });
  });
});
