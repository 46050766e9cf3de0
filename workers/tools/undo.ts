/**
 * How to undo what a tool did, as data: made before the tool runs, kept with the execution, carried out by whichever worker is asked.
 *
 * U1 Every step is checked before the first is carried out: an undo is whole or not at all.
 * U2 What is there now must be what the tool left there, unless the caller insists.
 * U3 Nothing is deleted for good: what an undo takes away goes to the trash of its root.
 * U4 A bus that is away for a while leaves no undo half done: what a file held is asked for until it comes, as long as the call lasts.
 */
import { lchown, lstat, mkdir, rename, rmdir, symlink, unlink } from "node:fs/promises";
import { join } from "node:path";
import { BeamlineError } from "../../contracts/errors.ts";
import { ToolFailure, reasonOf, systemCode } from "./failure.ts";
import { putFile, type Snapshot } from "./backup.ts";
import { look, TRASH, type Place } from "./files/confine.ts";
import { changeMode, fingerprint } from "./files/tree.ts";
import type { Call, Json } from "./tool.ts";

export type Step =
  /** A file or link gets back what it held. */
  | { readonly op: "put_back"; readonly path: string; readonly before: Snapshot; readonly after?: string }
  /** What was not there before goes away. */
  | { readonly op: "remove"; readonly path: string; readonly after?: string }
  /** Directories made on the way go, deepest first, unless something else lives there by now. */
  | { readonly op: "rmdir"; readonly paths: readonly string[] }
  /** What was moved goes back. */
  | { readonly op: "move"; readonly from: string; readonly to: string; readonly after?: string }
  | { readonly op: "mode"; readonly path: string; readonly mode: number; readonly after?: string }
  | { readonly op: "owner"; readonly path: string; readonly uid: number; readonly gid: number; readonly after?: string }
  /** The opposite tool, with its input. */
  | { readonly op: "run"; readonly tool: string; readonly input: Json; readonly after?: string }
  /** An agent's grants as they were; `revision` is the one the tool wrote. */
  | { readonly op: "grants"; readonly agent: string; readonly before: string | null; readonly revision?: number }
  /** What was asked for was so already: there is nothing to take back. */
  | { readonly op: "nothing"; readonly path?: string };

/** U4: between two tries, milliseconds. */
const AGAIN_MS = 200;

/** The same steps with what the tool left behind, for U2. */
export async function sealed(steps: readonly Step[], call: Call): Promise<readonly Step[]> {
  const done: Step[] = [];
  for (const step of steps) {
    const seen = await seenAt(step, call).catch((thrown: unknown) => {
      if (step.op === "run") return undefined; // what cannot be looked at cannot be compared either
      throw thrown;
    });
    done.push(seen === undefined || "after" in step ? step : ({ ...step, after: seen } as Step));
  }
  return done;
}

/** Carries the steps out, last one first. Throws `ToolFailure`; U1: then nothing has been done, unless the text says so. */
export async function undo(steps: readonly Step[], call: Call, forced: boolean): Promise<void> {
  if (!forced) await checkUndo(steps, call);
  let done = 0;
  for (const step of steps.toReversed()) {
    try {
      await carryOut(step, call, forced);
    } catch (thrown) {
      const partly = done === 0 ? "" : ` (${done} of ${steps.length} steps were undone)`;
      throw new ToolFailure(`${thrown instanceof ToolFailure ? thrown.message : reasonOf(thrown)}${partly}`);
    }
    done++;
  }
}

/** U1, U2. Whether every step could be carried out now. Throws `ToolFailure`. */
export async function checkUndo(steps: readonly Step[], call: Call): Promise<void> {
  for (const step of steps) await check(step, call);
}

async function check(step: Step, call: Call): Promise<void> {
  const after = "after" in step ? step.after : undefined;
  if (after !== undefined && (await seenAt(step, call)) !== after) {
    const where = step.op === "run" ? `what ${step.tool} would undo` : targetOf(step);
    throw new ToolFailure(`${where} has changed since; a reason beginning with "force:" undoes it all the same`);
  }
  if (step.op === "move" && (await look(call.host.files, step.to)) !== undefined)
    throw new ToolFailure(`${step.to} exists again`);
}

function targetOf(step: Step): string | undefined {
  if (step.op === "nothing") return undefined;
  return step.op === "move" ? step.from : "path" in step ? step.path : undefined;
}

/** What a step's target looks like now; undefined for steps that have none. */
async function seenAt(step: Step, call: Call): Promise<string | undefined> {
  if (step.op === "run") return call.host.seen(step.tool, step.input, call);
  const target = targetOf(step);
  if (target === undefined) return undefined;
  const place = await call.host.files.place(target, { trash: true, git: "inside" }).catch(() => undefined);
  if (place === undefined) return "absent";
  try {
    if (step.op !== "mode" && step.op !== "owner") return await fingerprint(place.at, call.signal);
    const stats = await lstat(place.at).catch(() => undefined);
    if (stats === undefined) return "absent";
    return step.op === "mode" ? (stats.mode & 0o7777).toString(8) : `${stats.uid}:${stats.gid}`;
  } finally {
    await place[Symbol.asyncDispose]();
  }
}

async function carryOut(step: Step, call: Call, forced: boolean): Promise<void> {
  const { files } = call.host;
  switch (step.op) {
    case "put_back": {
      await using place = await files.place(step.path, { parents: [], git: "inside" });
      return await putBack(place, step.before, call);
    }
    case "remove":
      return removeToTrash(step.path, call);
    case "rmdir": {
      for (const path of step.paths.toReversed()) {
        await using place = await files.place(path, { onTheWay: true, git: "inside" }).catch(() => undefined);
        if (place === undefined) continue;
        await rmdir(place.at).catch((thrown: unknown) => {
          if (!["ENOTEMPTY", "ENOENT"].includes(systemCode(thrown))) throw thrown;
        });
      }
      return;
    }
    case "move": {
      // What a tool that did not come to its end never took away is where it was.
      if (forced && (await seenAt(step, call)) === "absent" && (await look(files, step.to)) !== undefined) return;
      await using from = await files.place(step.from, { trash: true, git: "inside" });
      await using to = await files.place(step.to, { parents: [], git: "inside" });
      await rename(from.at, to.at);
      if (step.from.includes(`/${TRASH}/`)) await rmdir(from.sibling(".")).catch(() => undefined);
      return;
    }
    case "mode": {
      await using place = await files.place(step.path);
      return await changeMode(place.at, step.path, step.mode);
    }
    case "owner": {
      await using place = await files.place(step.path);
      return await lchown(place.at, step.uid, step.gid);
    }
    case "run":
      await call.host.runTool(step.tool, step.input, call);
      return;
    case "nothing":
      return;
    case "grants":
      return call.host.grants.restore(call.tenant, step.agent, step.before, step.revision);
  }
}

async function putBack(place: Place, before: Snapshot, call: Call): Promise<void> {
  if (before.kind === "link") {
    await unlink(place.at).catch(() => undefined);
    return symlink(before.target, place.at);
  }
  for (;;) {
    try {
      return void (await putFile(place, await call.host.backups.read(before, call.signal), before));
    } catch (thrown) {
      if (!(thrown instanceof BeamlineError) || thrown.code !== "unavailable") throw thrown;
      await call.host.clock.sleep(AGAIN_MS, call.signal); // U4
    }
  }
}

/** U3. Moves what is at the path aside; nothing there is fine. */
export async function removeToTrash(path: string, call: Call): Promise<void> {
  const to = await trashFor(path, call);
  await moveToTrash(path, to, call);
}

/**
 * Where a path would wait to be put back: the trash of the highest directory above it that is on the same file system and inside its
 * root, so that moving there is a rename.
 */
export async function trashFor(path: string, call: Call): Promise<string> {
  const { files, newId } = call.host;
  await using place = await files.place(path, { git: "inside" });
  if (place.name === ".") throw new ToolFailure(`${path} is a root`);
  let top = join(place.path, "..");
  const device = (await lstat(top)).dev;
  while (top !== place.root) {
    const above = join(top, "..");
    if ((await lstat(above)).dev !== device) break;
    top = above;
  }
  return join(top, TRASH, `${call.executionId}.${newId().slice(0, 8)}`, place.name);
}

/** Moves a path to where `trashFor` said. Throws the system's error when there is nothing. */
export async function moveToTrash(path: string, to: string, call: Call): Promise<void> {
  const { files } = call.host;
  await using from = await files.place(path, { git: "inside" });
  if ((await lstat(from.at).catch(() => undefined)) === undefined) return;
  await using trash = await files.place(join(to, "..", ".."), { trash: true });
  await mkdir(trash.at, { mode: 0o700 }).catch((thrown: unknown) => {
    if (systemCode(thrown) !== "EEXIST") throw thrown;
  });
  await using bin = await files.place(join(to, ".."), { trash: true });
  await mkdir(bin.at, { mode: 0o700 });
  await using target = await files.place(to, { trash: true });
  await rename(from.at, target.at);
}
