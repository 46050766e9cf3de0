import { spawnSync } from "node:child_process";
import { mkdir, mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { readAssignment } from "../../../contracts/execution/assignment.ts";
import type { JobContext } from "../job.ts";
import { fileJobs, relativePath } from "./files.ts";

let root: string;
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "beamline-files-"));
});
afterAll(() => rm(root, { recursive: true, force: true }));

const context = (tenant: string): JobContext => ({
  assignment: readAssignment(
    Buffer.from(
      JSON.stringify({
        version: "1",
        assignment_id: "a",
        request_id: "r",
        tenant_id: tenant,
        executor: { provider_id: "p", channel: "nats" },
        job: { type: "fs.get", payload: {} },
      }),
    ),
    {},
  ),
  attempt: 1,
  deadline: 0,
  signal: new AbortController().signal,
  traceparent: "",
});
const run = (type: "fs.get" | "fs.put", input: object, tenant = "acme") => {
  const job = fileJobs({ root, maxBytes: 100 }).find(({ types }) => types.includes(type));
  return job?.run(input, context(tenant));
};

test("what is put is got, by its tenant alone", async () => {
  await run("fs.put", { path: "deep/er/a.txt", content: "hello" });
  expect(await run("fs.get", { path: "deep/er/a.txt" })).toMatchObject({
    payload: { bytes: Buffer.from("hello").toString("base64"), size: 5 },
  });
  await run("fs.put", { path: "deep/er/a.txt", bytes: Buffer.from([0, 255]).toString("base64") });
  expect(await readFile(join(root, "acme", "deep/er/a.txt"))).toEqual(Buffer.from([0, 255]));
  await expect(run("fs.get", { path: "deep/er/a.txt" }, "other")).rejects.toMatchObject({ code: "INVALID_INPUT" });
});

test("without overwrite the same content may come again, another may not", async () => {
  const put = (content: string) => run("fs.put", { path: "once.txt", content, overwrite: false });
  await put("a");
  await put("a");
  await expect(put("b")).rejects.toMatchObject({
    code: "INVALID_INPUT",
    message: expect.stringContaining("exists") as string,
  });
});

test.each([true, false])(
  "F2: a write that breaks off leaves nothing under the name (overwrite %j)",
  async (overwrite) => {
    // Beyond the largest file it may make a process is told so or ended: its write breaks off in the middle.
    const put = (path: string, most: string): number | null => {
      const script = `
      const { fileJobs } = await import(${JSON.stringify(new URL("./files.ts", import.meta.url).href)});
      const jobs = fileJobs({ root: ${JSON.stringify(root)}, maxBytes: 2 ** 24 });
      const input = { path: "${path}", content: "x".repeat(2 ** 23), overwrite: ${overwrite} };
      await jobs.find(({ types }) => types.includes("fs.put")).run(input, { assignment: { tenant_id: "acme" } });`;
      const args = ["-c", `ulimit -f ${most}; exec "$0" "$@"`, process.execPath, "--input-type=module", "-e", script];
      return spawnSync("sh", args, { stdio: "ignore" }).status;
    };
    expect(put(`whole-${overwrite}.bin`, "unlimited")).toBe(0);
    expect(put("cut.bin", "64")).not.toBe(0);
    await expect(run("fs.get", { path: "cut.bin" })).rejects.toThrow("cut.bin does not exist");
  },
);

test.each(["../x", "a/../../x", "/etc/passwd", "a\0b", "..", "", ".", "a/", "..\\x"])(
  "the path %j is refused",
  (path) => {
    expect(() => relativePath(path)).toThrow(/job\.payload\.path/);
  },
);

test("no link leads outside, neither as a folder nor as a file", async () => {
  const home = join(root, "links");
  await mkdir(home);
  await writeFile(join(root, "secret.txt"), "secret");
  await symlink(root, join(home, "out"));
  await symlink(join(root, "secret.txt"), join(home, "file.txt"));
  await expect(run("fs.get", { path: "out/secret.txt" }, "links")).rejects.toMatchObject({ code: "PERMISSION_DENIED" });
  await expect(run("fs.get", { path: "file.txt" }, "links")).rejects.toMatchObject({ code: "PERMISSION_DENIED" });
  await expect(run("fs.put", { path: "out/new.txt", content: "x" }, "links")).rejects.toMatchObject({
    code: "PERMISSION_DENIED",
  });
  await expect(run("fs.put", { path: "file.txt", content: "x" }, "links")).rejects.toMatchObject({
    code: "PERMISSION_DENIED",
  });
  expect(await readFile(join(root, "secret.txt"), "utf8")).toBe("secret");
});

test("what does not fit or is none is refused with its field", async () => {
  await expect(run("fs.put", { path: "big", content: "x".repeat(101) })).rejects.toMatchObject({
    code: "QUOTA_EXCEEDED",
    retryable: false,
  });
  await expect(run("fs.put", { path: "x", bytes: "!!" })).rejects.toMatchObject({ code: "INVALID_FORMAT" });
  await expect(run("fs.put", { path: "x" })).rejects.toMatchObject({ code: "MISSING_REQUIRED_FIELD" });
  await expect(run("fs.get", {})).rejects.toMatchObject({
    code: "MISSING_REQUIRED_FIELD",
    message: "job.payload.path is required",
  });
  await mkdir(join(root, "acme", "folder"), { recursive: true });
  await expect(run("fs.get", { path: "folder" })).rejects.toMatchObject({ code: "INVALID_INPUT" });
});
