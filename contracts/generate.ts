/**
 * Makes contracts/gen from proto/: `npm run gen`, or with `--check` fails when the committed tree is not what proto/ says.
 *
 * The tree holds ts-proto's types and service definitions, `descriptors.binpb` (a FileDescriptorSet of everything, imports
 * included, no source positions; edge reflection and the JSON codec read it) and `index.ts` (all services and messages).
 * Needs no network: buf and the plugin come from node_modules, proto/ has no remote dependency.
 */
import { spawnSync } from "node:child_process";
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { fileURLToPath } from "node:url";
import { fromBinary } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import type { DescriptorProto, FileDescriptorSet } from "@bufbuild/protobuf/wkt";

const root = fileURLToPath(new URL("..", import.meta.url));
const bin = join(root, "node_modules", ".bin");
const committed = join(root, "contracts", "gen");

/** Runs buf in proto/. Throws with buf's own words when it fails. */
function buf(...args: readonly string[]): void {
  const done = spawnSync(join(bin, "buf"), args, {
    cwd: join(root, "proto"),
    // The plugin starts `node` from PATH; it has to be the pinned one.
    env: { ...process.env, PATH: [bin, process.env["PATH"]].join(delimiter) },
    encoding: "utf8",
  });
  if (done.error) throw done.error;
  if (done.status !== 0) throw new Error(`buf ${args[0]} failed\n${done.stdout}${done.stderr}`);
}

/** Generates the whole tree below an empty folder and returns where it is. */
function generate(scratch: string): string {
  const gen = join(scratch, "contracts", "gen");
  // buf.gen.yaml says `../contracts/gen`, seen from proto/: the scratch folder stands in for the root.
  buf("generate", "--output", join(scratch, "proto"));
  mkdirSync(gen, { recursive: true });
  const descriptors = join(gen, "descriptors.binpb");
  buf("build", "--exclude-source-info", "--output", descriptors);
  writeFileSync(join(gen, "index.ts"), indexOf(fromBinary(FileDescriptorSetSchema, readFileSync(descriptors))));
  return gen;
}

/** A generated constant: the full name of what it stands for, its name in TypeScript, the module that exports it. */
type Export = { readonly fullName: string; readonly name: string; readonly module: string };

/** Source of index.ts, ordered by full name. Messages are those of our packages and those any RPC takes or returns. */
function indexOf({ file: files }: FileDescriptorSet): string {
  const services: Export[] = [];
  const messages: Export[] = [];
  const used = new Set(
    files.flatMap(({ service }) => service.flatMap(({ method }) => method.flatMap((m) => [m.inputType, m.outputType]))),
  );
  for (const file of files) {
    const module = `./${file.name.replace(/\.proto$/, ".ts")}`;
    const ours = file.package !== "google.protobuf";
    for (const { name } of file.service) {
      services.push({ fullName: `${file.package}.${name}`, name: `${name}Definition`, module });
    }
    for (const name of messageNames(file.messageType)) {
      const fullName = `${file.package}.${name}`;
      if (ours || used.has(`.${fullName}`)) messages.push({ fullName, name: name.replaceAll(".", "_"), module });
    }
  }
  if (services.length === 0) throw new Error("proto/ declares no service");
  services.sort(byFullName);
  messages.sort(byFullName);
  return [
    "// Made by contracts/generate.ts from the descriptor set. DO NOT EDIT.",
    ...[...services, ...messages].map((e) => `import { ${e.name} as ${alias(e)} } from "${e.module}";`),
    "",
    "/** Every service of every package, ordered by full name. */",
    `export const services = [\n${services.map((e) => `  ${alias(e)},\n`).join("")}] as const;`,
    "",
    "/** Every message by full name: those of our packages, and those any RPC takes or returns. */",
    `export const messages = {\n${messages.map((e) => `  "${e.fullName}": ${alias(e)},\n`).join("")}} as const;`,
    "",
  ].join("\n");
}

/** Names of messages and of those nested in them (`Outer.Inner`), without the entries protobuf makes for maps. */
function messageNames(types: readonly DescriptorProto[], prefix = ""): string[] {
  const names: string[] = [];
  for (const { name, nestedType, options } of types) {
    if (!options?.mapEntry) names.push(prefix + name, ...messageNames(nestedType, `${prefix}${name}.`));
  }
  return names;
}

/** Short names repeat between packages (Status, StreamChunk), full names do not. */
function alias({ fullName, name }: Export): string {
  return `${fullName.replaceAll(".", "_")}${name.endsWith("Definition") ? "Definition" : ""}`;
}

function byFullName(a: Export, b: Export): number {
  return a.fullName < b.fullName ? -1 : 1;
}

/** Files of a tree, sorted, as paths relative to it; none when the folder does not exist. */
function filesOf(folder: string): string[] {
  if (!existsSync(folder)) return [];
  const entries = readdirSync(folder, { recursive: true, withFileTypes: true });
  return entries
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(folder.length + 1))
    .sort();
}

/** What is wrong with the committed tree, one line per file; empty when it is what was generated. */
function differences(generated: string): string[] {
  const wanted = filesOf(generated);
  const present = new Set(filesOf(committed));
  const stale = [...present].filter((path) => !wanted.includes(path)).map((path) => `stale    ${path}`);
  const wrong = wanted.flatMap((path) => {
    if (!present.has(path)) return [`missing  ${path}`];
    return readFileSync(join(generated, path)).equals(readFileSync(join(committed, path))) ? [] : [`differs  ${path}`];
  });
  return [...wrong, ...stale];
}

function main(args: readonly string[]): void {
  const scratch = mkdtempSync(join(tmpdir(), "beamline-gen-"));
  try {
    const generated = generate(scratch);
    const count = filesOf(generated).length;
    if (args.includes("--check")) {
      const wrong = differences(generated);
      if (wrong.length > 0)
        throw new Error(`contracts/gen is not what proto/ says; run npm run gen\n${wrong.join("\n")}`);
      process.stdout.write(`contracts/gen is up to date (${count} files)\n`);
    } else {
      // Only now, so that a failure leaves the old tree as it was.
      rmSync(committed, { recursive: true, force: true });
      cpSync(generated, committed, { recursive: true });
      process.stdout.write(`contracts/gen: ${count} files\n`);
    }
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

try {
  main(process.argv.slice(2));
} catch (error) {
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 1;
}
