import { spawn } from "node:child_process";
import { once } from "node:events";
import { expect, test } from "vitest";
import { freePort, isPortFree } from "./ports.ts";

const asker = `
  const { freePort } = await import(process.argv[1]);
  const ports = [];
  for (let i = 0; i < 30; i++) ports.push(await freePort());
  process.stdout.write(JSON.stringify(ports) + "\\n");
  process.stdin.resume();
`;

/** Another process that has been told 30 ports and lives until it is let go. */
async function otherProcess() {
  const child = spawn(process.execPath, ["--input-type=module", "-e", asker, import.meta.resolve("./ports.ts")], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  const gone = once(child, "exit");
  const [said] = (await once(child.stdout.setEncoding("utf8"), "data")) as [string];
  const letGo = async () => {
    child.stdin.end();
    await gone;
  };
  return { ports: JSON.parse(said) as number[], letGo, [Symbol.asyncDispose]: letGo };
}

test("R1, R3: ports asked for one after the other, or at once, are different, free, and below the range of outgoing connections", async () => {
  const ports = [await freePort(), ...(await Promise.all(Array.from({ length: 20 }, () => freePort())))];
  expect(new Set(ports).size).toBe(21);
  for (const port of ports) {
    expect(port).toBeGreaterThan(20_000);
    expect(port).toBeLessThan(32_000);
    expect(await isPortFree(port)).toBe(true);
  }
});

test("R2: processes are never told each other's ports, though nothing listens on them yet", async () => {
  const others = await Promise.all(Array.from({ length: 4 }, otherProcess));
  const told = [...others.flatMap(({ ports }) => ports), await freePort()];
  expect(new Set(told).size).toBe(121);
  await Promise.all(others.map(({ letGo }) => letGo())); // The guard keeps no process alive.
});
