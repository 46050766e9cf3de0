/**
 * Files of a tenant, each tenant below a folder of its own (BeamLine, job types).
 *
 * F1 A path is relative and has no `..`; nothing outside the tenant's folder is read or written, also not through a symbolic link.
 * F2 A file is there whole or not at all: it is written beside and moved into place.
 */
import { constants } from "node:fs";
import { link, mkdir, open, realpath, rename, rm } from "node:fs/promises";
import { dirname, join, normalize, sep } from "node:path";
import { tokenOf } from "../../../bus/keys.ts";
import type { JsonObject } from "../../../contracts/codec.ts";
import { systemIds } from "../../../runtime/ids.ts";
import { objectInput, textInput, type Job } from "../job.ts";
import { StepFailure } from "../step.ts";

export interface FileOptions {
  /** Folder below which the tenants' folders are. Made on first use. */
  readonly root: string;
  /** Largest file read or written, bytes. */
  readonly maxBytes: number;
}

/** `fs.blob_get` `{path}` → `{path, bytes (base64), size}`; `fs.blob_put` `{path, bytes or content, overwrite = true}` → `{path, size}`. */
export function fileJobs({ root, maxBytes }: FileOptions): Job[] {
  return [
    {
      types: ["fs.blob_get", "fs_blob_get", "fs.get"],
      effect: "repeatable",
      async run(input, { assignment }) {
        const path = relativePath(textInput(objectInput(input), "path"));
        const bytes = await read(await home(root, assignment.tenant_id), path, maxBytes);
        return { payload: { path, bytes: bytes.toString("base64"), size: bytes.length } };
      },
    },
    {
      types: ["fs.blob_put", "fs_blob_put", "fs.put"],
      // The same bytes at the same place: doing it again changes nothing.
      effect: "repeatable",
      async run(input, { assignment }) {
        const given = objectInput(input);
        const path = relativePath(textInput(given, "path"));
        const bytes = bytesIn(given);
        if (bytes.length > maxBytes)
          throw new StepFailure("QUOTA_EXCEEDED", `job.payload.content has more than ${maxBytes} bytes`, {
            retryable: false,
          });
        await write(await home(root, assignment.tenant_id), path, bytes, given["overwrite"] !== false);
        return { payload: { path, size: bytes.length } };
      },
    },
  ];
}

/** F1, as far as the words go. */
export function relativePath(path: string): string {
  const clean = normalize(path);
  if (
    path.includes("\0") ||
    clean.startsWith(sep) ||
    clean === ".." ||
    clean.startsWith(`..${sep}`) ||
    path.split(/[\\/]/).includes("..")
  ) {
    throw new StepFailure("INVALID_INPUT", "job.payload.path must be relative and stay inside");
  }
  if (clean === "." || clean.endsWith(sep)) throw new StepFailure("INVALID_INPUT", "job.payload.path must name a file");
  return clean;
}

/** The tenant's folder, as the file system calls it. */
async function home(root: string, tenant: string): Promise<string> {
  const folder = join(root, tokenOf(tenant));
  await mkdir(folder, { recursive: true, mode: 0o700 });
  return realpath(folder);
}

async function read(folder: string, path: string, maxBytes: number): Promise<Buffer> {
  const full = join(folder, path);
  try {
    await inside(folder, dirname(full));
    await using file = await open(full, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
    const { size } = await regular(file);
    if (size > maxBytes)
      throw new StepFailure("QUOTA_EXCEEDED", `${path} has more than ${maxBytes} bytes`, { retryable: false });
    return await file.readFile();
  } catch (thrown) {
    throw explained(thrown, path);
  }
}

async function write(folder: string, path: string, bytes: Buffer, overwrite: boolean): Promise<void> {
  const full = join(folder, path);
  const parent = dirname(full);
  const beside = join(parent, `.${systemIds.v4()}.part`);
  try {
    await deepMkdir(folder, parent);
    if (overwrite) await refuseFolder(full);
    await create(beside, bytes);
    await (overwrite ? rename(beside, full) : place(beside, full, bytes, path));
  } catch (thrown) {
    throw explained(thrown, path);
  } finally {
    await rm(beside, { force: true });
  }
}

async function create(full: string, bytes: Buffer): Promise<void> {
  await using file = await open(
    full,
    constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW,
    0o600,
  );
  await file.writeFile(bytes);
  await file.sync();
}

/** F2, where nothing may be overwritten. A file of the same content counts as made: an earlier attempt may have made it. */
async function place(beside: string, full: string, bytes: Buffer, path: string): Promise<void> {
  try {
    await link(beside, full);
  } catch (thrown) {
    if (errno(thrown) !== "EEXIST") throw thrown;
    await using there = await open(full, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
    await regular(there);
    if (!(await there.readFile()).equals(bytes)) throw new StepFailure("INVALID_INPUT", `${path} exists already`);
  }
}

/** Folder by folder, each looked at before the next: a link on the way would lead outside. */
async function deepMkdir(folder: string, parent: string): Promise<void> {
  let at = folder;
  for (const part of parent.slice(folder.length).split(sep)) {
    if (part === "") continue;
    at = join(at, part);
    await mkdir(at, { mode: 0o700 }).catch((thrown: unknown) => {
      if (errno(thrown) !== "EEXIST") throw thrown;
    });
    await inside(folder, at);
  }
}

/** F1, as far as the file system goes. */
async function inside(folder: string, parent: string): Promise<void> {
  const real = await realpath(parent);
  if (real !== parent || (real !== folder && !real.startsWith(folder + sep))) {
    throw new StepFailure("PERMISSION_DENIED", "job.payload.path leads outside through a link");
  }
}

async function regular(file: Awaited<ReturnType<typeof open>>): Promise<{ size: number }> {
  const stat = await file.stat();
  if (!stat.isFile()) throw new StepFailure("INVALID_INPUT", "job.payload.path is not a file");
  return stat;
}

async function refuseFolder(full: string): Promise<void> {
  try {
    await using there = await open(full, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
    await regular(there);
  } catch (thrown) {
    if (errno(thrown) !== "ENOENT") throw thrown;
  }
}

function bytesIn(given: JsonObject): Buffer {
  const { bytes, content } = given;
  if (typeof bytes === "string") {
    const decoded = Buffer.from(bytes, "base64");
    if (decoded.toString("base64").replace(/=+$/, "") !== bytes.replace(/=+$/, ""))
      throw new StepFailure("INVALID_FORMAT", "job.payload.bytes must be base64");
    return decoded;
  }
  if (typeof content === "string") return Buffer.from(content, "utf8");
  throw new StepFailure("MISSING_REQUIRED_FIELD", "job.payload.content or job.payload.bytes is required");
}

function errno(thrown: unknown): string {
  return thrown instanceof Error && "code" in thrown ? String(thrown.code) : "";
}

function explained(thrown: unknown, path: string): StepFailure {
  if (thrown instanceof StepFailure) return thrown;
  switch (errno(thrown)) {
    case "ENOENT":
      return new StepFailure("INVALID_INPUT", `${path} does not exist`);
    case "ELOOP":
    case "EACCES":
    case "EPERM":
      return new StepFailure("PERMISSION_DENIED", `${path} may not be opened`);
    case "EISDIR":
    case "ENOTDIR":
    case "ENAMETOOLONG":
      return new StepFailure("INVALID_INPUT", `${path} is not a file`);
    case "ENOSPC":
    case "EMFILE":
      return new StepFailure("RESOURCE_UNAVAILABLE", `${path} cannot be written now`, { cause: thrown });
    default:
      return new StepFailure("EXECUTION_FAILED", `${path} cannot be used`, { cause: thrown });
  }
}
