import { randomBytes } from "node:crypto";
import { linkSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { LocalStackError } from "./failure.ts";

/** The users `nats.conf` knows. Their rights are written there, and only there. */
export const natsUsers = ["edge", "worker", "publisher", "operator"] as const;

/** One of the users `nats.conf` knows. */
export type NatsUser = (typeof natsUsers)[number];

/** How one user connects. */
export interface NatsCredential {
  readonly user: NatsUser;
  readonly password: string;
  /** Replies to this user arrive below this prefix, and no other user (but the operator) can listen there. */
  readonly inboxPrefix: string;
}

/** How every user connects. */
export type NatsCredentials = Readonly<Record<NatsUser, NatsCredential>>;

const inboxPrefixes: Readonly<Record<NatsUser, string>> = {
  edge: "_INBOX_EDGE",
  worker: "_INBOX_WORKER",
  publisher: "_INBOX",
  operator: "_INBOX_OP",
};

/** `BEAMLINE_NATS_EDGE_PASSWORD` for `edge`. */
export function passwordVariable(user: NatsUser): string {
  return `BEAMLINE_NATS_${user.toUpperCase()}_PASSWORD`;
}

/**
 * Passwords from the environment where it has them, else from `<data dir>/credentials.json` (mode 0600), which is made
 * with random ones at the first call. Processes that call at the same time get the same passwords.
 */
export function loadCredentials(dataDir: string, env: NodeJS.ProcessEnv = process.env): NatsCredentials {
  const stored = readOrCreate(join(dataDir, "credentials.json"));
  const one = (user: NatsUser): NatsCredential => ({
    user,
    password: env[passwordVariable(user)] || stored[user],
    inboxPrefix: inboxPrefixes[user],
  });
  return { edge: one("edge"), worker: one("worker"), publisher: one("publisher"), operator: one("operator") };
}

/** The variables `nats.conf` reads its passwords from. */
export function credentialEnv(credentials: NatsCredentials): Record<string, string> {
  return Object.fromEntries(natsUsers.map((user) => [passwordVariable(user), credentials[user].password]));
}

type Passwords = Record<NatsUser, string>;

function readOrCreate(path: string): Passwords {
  const known = read(path);
  if (known !== undefined) return known;
  mkdirSync(join(path, ".."), { recursive: true });
  const draft = `${path}.${process.pid}.${randomBytes(4).toString("hex")}`;
  const fresh: Passwords = { edge: password(), worker: password(), publisher: password(), operator: password() };
  writeFileSync(draft, `${JSON.stringify(fresh, null, 2)}\n`, { mode: 0o600 });
  try {
    linkSync(draft, path); // Fails when another process was first: then its passwords are the ones.
  } catch (error) {
    if (!(error instanceof Error && "code" in error && error.code === "EEXIST")) throw error;
  } finally {
    rmSync(draft);
  }
  return read(path) ?? fresh;
}

function read(path: string): Passwords | undefined {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return undefined;
    throw error;
  }
  const found: unknown = tryParse(text);
  if (!isPasswords(found)) {
    throw new LocalStackError(
      `${path} does not hold one password for each of ${natsUsers.join(", ")}: delete it and new ones are made`,
    );
  }
  return found;
}

function tryParse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function isPasswords(value: unknown): value is Passwords {
  if (typeof value !== "object" || value === null) return false;
  const held = new Map<string, unknown>(Object.entries(value));
  return natsUsers.every((user) => typeof held.get(user) === "string" && held.get(user) !== "");
}

function password(): string {
  return `bl${randomBytes(24).toString("hex")}`; // Starts with a letter: the server reads a bare value of digits as a number.
}
