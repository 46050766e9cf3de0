/** How a tool says that it could not do what it was asked: the text travels inside the response, the RPC stays OK (aiOS tools, 1.2). */
export class ToolFailure extends Error {
  override readonly name = "ToolFailure";
}

/** A program or service this host does not have. */
export function missing(what: string, hint = ""): ToolFailure {
  return new ToolFailure(`${what} is not available on this host${hint === "" ? "" : `: ${hint}`}`);
}

/** The operating system's words for an error, without the path it repeats: `no such file or directory`. */
export function reasonOf(thrown: unknown): string {
  if (!(thrown instanceof Error)) return String(thrown);
  const code = "code" in thrown ? String(thrown.code) : "";
  return systemReasons[code] ?? /^E[A-Z]+: ([^,]+)/.exec(thrown.message)?.[1] ?? thrown.message;
}

const systemReasons: Readonly<Record<string, string>> = {
  ENOENT: "no such file or directory",
  EACCES: "permission denied",
  EPERM: "operation not permitted",
  ENOTDIR: "not a directory",
  EISDIR: "is a directory",
  EEXIST: "already exists",
  ENOTEMPTY: "directory is not empty",
  ELOOP: "is a symbolic link",
  ENOSPC: "no space left on device",
  EROFS: "read-only file system",
  EBUSY: "device or resource busy",
  EMFILE: "too many open files",
  ENAMETOOLONG: "file name too long",
  EXDEV: "on another file system",
  EINVAL: "invalid argument",
  ECONNREFUSED: "connection refused",
  ETIMEDOUT: "timed out",
  EHOSTUNREACH: "host unreachable",
};

/** The code of a system error (`ENOENT`), empty for anything else. */
export function systemCode(thrown: unknown): string {
  return thrown instanceof Error && "code" in thrown && typeof thrown.code === "string" ? thrown.code : "";
}
