#!/usr/bin/env node
/**
 * Runs before `npm start` and `npm test`, on whatever Node (18 or newer) the machine has, with nothing installed yet: brings node_modules
 * up to the lock file, and makes sure that the pinned Node is really among it. Says nothing when there is nothing to do.
 *
 *   node deploy/local/bootstrap.mjs [directory of package.json]
 *
 * Exit code 1, with what to do on the error output, when it cannot be brought about.
 */
import { spawnSync } from "node:child_process";
import { mkdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { basename, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const OLDEST_NODE = 18;
const LOCK_WAIT_MS = 15 * 60_000;

const root = resolve(process.argv[2] ?? fileURLToPath(new URL("../..", import.meta.url)));
const pinnedNode = join(root, "node_modules", ".bin", process.platform === "win32" ? "node.cmd" : "node");
const lockDirectory = join(root, ".beamline", "install.lock");

if (Number(process.versions.node.split(".")[0]) < OLDEST_NODE) {
  giveUp(`Node ${process.versions.node} is too old to run npm for this project: install Node ${OLDEST_NODE} or newer.`);
}

if (reasonToInstall() !== undefined) {
  takeLock();
  process.on("exit", () => rmSync(lockDirectory, { recursive: true, force: true }));
  const reason = reasonToInstall(); // Whoever held the lock may have done it.
  if (reason !== undefined) install(reason);
}

/** Why node_modules cannot be used as it is, or undefined. */
function reasonToInstall() {
  const wanted = readJson(join(root, "package-lock.json"))?.packages;
  if (wanted === undefined)
    giveUp(`package-lock.json in ${root} cannot be read: restore it (git checkout package-lock.json).`);
  const present = readJson(join(root, "node_modules", ".package-lock.json"))?.packages;
  if (present === undefined) return "dependencies are not installed yet";
  for (const [path, entry] of Object.entries(wanted)) {
    if (path === "" || entry.link === true) continue;
    const installed = present[path];
    // Optional ones may be meant for another platform: npm leaves those out.
    if (installed === undefined && (entry.optional === true || entry.devOptional === true || entry.peer === true))
      continue;
    if (installed === undefined) return `${basename(path)} is not installed`;
    if (installed.version !== entry.version || installed.integrity !== entry.integrity) {
      return `${basename(path)} is ${installed.version}, the lock file says ${entry.version}`;
    }
  }
  return nodeProblem(wanted["node_modules/node"]?.version);
}

/** What is wrong with the pinned Node, or undefined. */
function nodeProblem(version) {
  if (version === undefined) return undefined; // None is pinned.
  const asked = spawnSync(pinnedNode, ["--version"], { encoding: "utf8", shell: process.platform === "win32" });
  if (asked.error !== undefined || asked.status !== 0) return `node_modules/.bin/node does not run`;
  const found = asked.stdout.trim();
  return found === `v${version}` ? undefined : `node_modules/.bin/node is ${found}, the lock file says v${version}`;
}

function install(reason) {
  console.log(`npm ci: ${reason}`);
  let run = npm("ci");
  if (run.status !== 0 && /code EUSAGE/.test(run.stderr)) {
    // A registry that lacked some other platform's optional packages when the lock file was written leaves it without them, and npm ci
    // refuses such a file. What this platform needs is in it all the same: npm install takes exactly that, and changes no file.
    console.log("npm install --no-save: npm ci says that the lock file lacks packages");
    run = npm("install", "--no-save");
  }
  if (run.error !== undefined) giveUp(`npm cannot be run: ${run.error.message}`);
  process.stderr.write(run.stderr);
  if (run.status !== 0) giveUp(`npm failed (${run.signal ?? `code ${run.status}`}): what it wrote above says why.`);
  const still = reasonToInstall();
  if (still === undefined) return;
  if (!still.startsWith("node_modules/.bin/node"))
    giveUp(`npm ended well, and yet ${still}. Delete node_modules and try again.`);
  giveUp(
    [
      `npm ended well, and yet ${still}.`,
      `The package "node" brings its binary in an install script, and npm did not run it or it failed. Look at:`,
      `  npm config get ignore-scripts     must be false: npm config set ignore-scripts false --location=project`,
      `  "allowScripts" in package.json    must have "node": true, as this repository ships it`,
      `  the network                       the script asks the npm registry for the binary of this platform (${process.platform}-${process.arch})`,
      `Then: npm rebuild node --foreground-scripts`,
    ].join("\n"),
  );
}

/** Runs the npm that runs us, or the one on PATH. */
function npm(...command) {
  // Development dependencies always: Node itself is one, and NODE_ENV=production would leave it out.
  const args = [...command, "--include=dev", "--no-audit", "--no-fund", "--loglevel=error"];
  const options = { cwd: root, stdio: ["inherit", "inherit", "pipe"], encoding: "utf8", maxBuffer: 64 * 1024 * 1024 };
  const script = process.env.npm_execpath;
  if (script !== undefined && /npm-cli\.c?js$/.test(script))
    return spawnSync(process.execPath, [script, ...args], options);
  return spawnSync("npm", args, { ...options, shell: process.platform === "win32" });
}

/**
 * One installation at a time: npm ci deletes node_modules first. A lock whose process is gone is taken away; moving it aside
 * first lets only one of several waiting processes do that.
 */
function takeLock() {
  mkdirSync(join(lockDirectory, ".."), { recursive: true });
  const deadline = Date.now() + LOCK_WAIT_MS;
  for (let told = false; ;) {
    try {
      mkdirSync(lockDirectory);
      writeFileSync(join(lockDirectory, "pid"), String(process.pid));
      return;
    } catch (error) {
      if (error.code !== "EEXIST") giveUp(`${lockDirectory} cannot be made: ${error.message}`);
    }
    const holder = lockHolder();
    if (holder === undefined) {
      removeStaleLock();
      continue;
    }
    if (!told) console.log(`waiting for npm ci of process ${holder}`);
    told = true;
    if (Date.now() > deadline)
      giveUp(`process ${holder} holds ${lockDirectory} for too long: end it, or remove that directory.`);
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 100);
  }
}

/** The process that holds the lock; "(starting)" in the moment before it has written its id; undefined when it is gone. */
function lockHolder(directory = lockDirectory) {
  const pid = Number(readText(join(directory, "pid")));
  if (!Number.isInteger(pid) || pid <= 0) {
    const made = statSync(directory, { throwIfNoEntry: false })?.mtimeMs;
    return made === undefined || Date.now() - made > 5_000 ? undefined : "(starting)";
  }
  if (pid === process.pid) return undefined; // An earlier process had our number: we hold nothing yet.
  try {
    process.kill(pid, 0);
    return pid;
  } catch (error) {
    return error.code === "EPERM" ? pid : undefined;
  }
}

function removeStaleLock() {
  const aside = `${lockDirectory}.${process.pid}`;
  try {
    renameSync(lockDirectory, aside);
  } catch {
    return; // Another one was quicker.
  }
  // Was it taken anew between the look and the move? Then it goes back to its holder.
  try {
    if (lockHolder(aside) !== undefined) renameSync(aside, lockDirectory);
  } catch {
    // A third one has taken it meanwhile: its installation waits for nobody, and npm sorts the two out or fails loudly.
  }
  rmSync(aside, { recursive: true, force: true });
}

function readJson(path) {
  try {
    return JSON.parse(readText(path));
  } catch {
    return undefined;
  }
}

function readText(path) {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}

function giveUp(message) {
  console.error(message);
  process.exit(1);
}
