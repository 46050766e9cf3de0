/** Imports point one way: contracts ← bus ← edge, workers; runtime beside bus; vendors enter through their own files. */
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";

const root = fileURLToPath(new URL("..", import.meta.url));

/** What the files of a folder may import from, besides their own folder. */
const allowed: Readonly<Record<string, readonly string[]>> = {
  contracts: [],
  runtime: ["contracts"],
  bus: ["contracts", "runtime"],
  edge: ["contracts", "runtime", "bus"],
  workers: ["contracts", "runtime", "bus"],
};

/** Vendor packages and the only files that may import them. */
const vendors: readonly (readonly [RegExp, RegExp])[] = [
  [/^@nats-io\//, /^bus\//],
  [/^ioredis$/, /\.redis\.ts$/],
  [/^@qdrant\//, /\.qdrant\.ts$/],
  [/^@grpc\//, /^(edge|workers\/tools)\//],
  [/^fastify$/, /^(runtime\/http\.ts|edge\/)/],
  [/^pino$/, /^runtime\/log\.ts$/],
  [/^@opentelemetry\/(?!api$)/, /^runtime\/telemetry\.ts$/],
  [/^undici$/, /^runtime\/egress[\w.-]*\.ts$/],
  [/^commander$/, /^cli\//],
];

interface Import {
  readonly from: string;
  readonly to: string;
}

function sources(folder: string): string[] {
  return readdirSync(join(root, folder), { recursive: true, encoding: "utf8" })
    .filter((path) => path.endsWith(".ts") && !path.endsWith(".test.ts") && !path.endsWith("testbed.ts"))
    .map((path) => join(folder, path));
}

const imports: Import[] = Object.keys(allowed).flatMap((folder) =>
  sources(folder).flatMap((from) =>
    [...readFileSync(join(root, from), "utf8").matchAll(/(?:from|import\()\s*"([^"]+)"/g)].map(([, spec = ""]) => ({
      from,
      to: spec.startsWith(".") ? relative(root, resolve(root, dirname(from), spec)) : spec,
    })),
  ),
);

test("there are imports to look at", () => expect(imports.length).toBeGreaterThan(100));

test("folders import only what stands left of them", () => {
  const wrong = imports.filter(({ from, to }) => {
    const [folder = "", room = ""] = from.split("/");
    const [target = "", otherRoom = ""] = to.split("/");
    if (
      !(target in allowed) &&
      target !== "package.json" &&
      target !== "deploy" &&
      target !== "cli" &&
      target !== "test"
    )
      return false; // a package
    if (target === "package.json") return folder !== "runtime";
    if (target !== folder) return !(allowed[folder] ?? []).includes(target);
    // One worker never imports another; what stands directly in workers/ is shared, and only main knows the rooms.
    if (folder !== "workers" || room === otherRoom || !otherRoom.includes(".")) {
      return folder === "workers" && room !== otherRoom && !otherRoom.endsWith(".ts") && room !== "modules.ts";
    }
    return false;
  });
  expect(wrong).toEqual([]);
});

test("vendor packages enter through their own files", () => {
  const wrong = imports.filter(({ from, to }) => vendors.some(([vendor, door]) => vendor.test(to) && !door.test(from)));
  expect(wrong).toEqual([]);
});

test("whoever listens on the bus does it through Bus.subscribe, which keeps what a listener throws", () => {
  const raw = Object.keys(allowed)
    .flatMap((folder) => sources(folder))
    .filter((file) => /\bnc\.subscribe\(/.test(readFileSync(join(root, file), "utf8")));
  expect(raw).toEqual(["bus/connect.ts"]);
});
