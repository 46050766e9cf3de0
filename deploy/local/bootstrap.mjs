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
import { randomBytes } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { basename, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const OLDEST_NODE = 18;
const TURN_WAIT_MS = 15 * 60_000;

const root = resolve(process.argv[2] ?? fileURLToPath(new URL("../..", import.meta.url)));
const pinnedNode = join(root, "node_modules", ".bin", process.platform === "win32" ? "node.cmd" : "node");
const installing = join(root, ".beamline", "installing");
const ownTurn = `${process.pid}.${randomBytes(8).toString("hex")}`;

if (Number(process.versions.node.split(".")[0]) < OLDEST_NODE) {
  giveUp(`Node ${process.versions.node} is too old to run npm for this project: install Node ${OLDEST_NODE} or newer.`);
}

if (reasonToInstall() !== undefined) {
  process.on("exit", withdraw);
  takeTurn();
  const reason = reasonToInstall(); // Whoever had the turn before may have done it.
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
 * One installation at a time: npm ci deletes node_modules first. Whoever wants to install makes a file named after itself, and may begin
 * when it then sees no other living process's file; else it takes its own away and tries again a little later. Each makes its file
 * before it looks, so two can never both begin; a file whose process is gone counts for nothing, and its name is never used again.
 */
function takeTurn() {
  const deadline = Date.now() + TURN_WAIT_MS;
  for (let told = false; ;) {
    let other = othersInstalling()[0];
    if (other === undefined) {
      announce();
      other = othersInstalling()[0];
      if (other === undefined) return;
      withdraw();
    }
    if (!told) console.log(`waiting for npm ci of process ${other}`);
    told = true;
    if (Date.now() > deadline) giveUp(`process ${other} installs for too long: end it, or empty ${installing}.`);
    pause(50 + Math.random() * 100);
  }
}

function announce() {
  try {
    mkdirSync(installing, { recursive: true });
    writeFileSync(join(installing, ownTurn), "");
  } catch (error) {
    giveUp(`${installing} cannot be written: ${error.message}`);
  }
}

function withdraw() {
  rmSync(join(installing, ownTurn), { force: true });
}

/** The other living processes that have announced an installation. What the dead have left is taken away. */
function othersInstalling() {
  const living = [];
  for (const turn of existsSync(installing) ? readdirSync(installing) : []) {
    if (turn === ownTurn) continue;
    const pid = Number(turn.split(".")[0]);
    // One with our number is of an earlier process.
    if (Number.isInteger(pid) && pid > 0 && pid !== process.pid && isAlive(pid)) living.push(pid);
    else rmSync(join(installing, turn), { recursive: true, force: true });
  }
  return living;
}

function isAlive(pid) {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error.code === "EPERM";
  }
}

function pause(ms) {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
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
