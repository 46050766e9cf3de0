/** Code from templates (aiOS tools, namespace code). No model is asked. */
import { basename, extname, join } from "node:path";
import { putFile } from "../backup.ts";
import { ToolFailure } from "../failure.ts";
import { look } from "../files/confine.ts";
import { bool, int, list, object, path, str } from "../schema.ts";
import { tool, type Namespace } from "../tool.ts";
import { failing, located, replacing, restoring } from "./atpath.ts";

const TYPES = ["generic", "rust", "python", "node"] as const;
type ProjectType = (typeof TYPES)[number];

export const code: Namespace<"code"> = {
  "code.scaffold": tool<{ name: string; path: string; project_type: ProjectType; description: string }>({
    about: "Makes the skeleton of a project in a directory that is missing or lacks these files.",
    input: object({
      name: str("", { minLength: 1, maxLength: 64, pattern: "^[A-Za-z][A-Za-z0-9_-]*$" }),
      path: path("Directory of the project."),
      "project_type?": str("", { enum: TYPES, default: "generic" }),
      "description?": str("", { maxLength: 1_000, default: "" }),
    }),
    output: object({ success: bool(), path: str(), files_created: list(str()), project_type: str() }),
    changes: true,
    paths: ["path"],
    async prepare({ name, path, project_type, description }, call) {
      if ((await look(call.host.files, path)) === undefined) return restoring("code.scaffold", path, call);
      const steps = [];
      for (const file of Object.keys(skeleton(name, project_type, description))) {
        if ((await look(call.host.files, join(path, file))) !== undefined)
          throw new ToolFailure(`code.scaffold: ${join(path, file)} already exists`);
        steps.push(...(await restoring("code.scaffold", join(path, file), call)));
      }
      return steps;
    },
    async run({ name, path, project_type, description }, call) {
      const files = skeleton(name, project_type, description);
      const made: string[] = [];
      for (const [file, content] of Object.entries(files)) {
        await using place = await located("code.scaffold", join(path, file), call, { parents: [] });
        await putFile(place, content, undefined).catch(failing("code.scaffold", `failed to write ${file}`));
        made.push(place.path);
      }
      return { success: true, path: call.host.files.plain(path), files_created: made, project_type };
    },
  }),

  "code.generate": tool<{ file_path: string; description: string; language?: string; create_dirs: boolean }>({
    about: "Writes a file from a template for its language.",
    input: object({
      file_path: path("File."),
      description: str("", { maxLength: 10_000 }),
      "language?": str("By the extension when not given.", { maxLength: 32 }),
      "create_dirs?": bool("", { default: true }),
    }),
    output: object({ success: bool(), file_path: str(), language: str(), lines: int(), generated_by: str() }),
    changes: true,
    paths: ["file_path"],
    prepare: ({ file_path }, call) => restoring("code.generate", file_path, call),
    async run({ file_path, description, language, create_dirs }, call) {
      const known = language ?? byExtension[extname(file_path)] ?? "text";
      const text = template(known, description, basename(file_path, extname(file_path)));
      await using place = await located("code.generate", file_path, call, {
        follow: true,
        ...(create_dirs && { parents: [] }),
      });
      await putFile(place, text, await replacing("code.generate", file_path, place)).catch(
        failing("code.generate", `failed to write ${file_path}`),
      );
      return {
        success: true,
        file_path: place.path,
        language: known,
        lines: text.split("\n").length - 1,
        generated_by: "template",
      };
    },
  }),
};

const byExtension: Readonly<Record<string, string>> = {
  ".py": "python",
  ".rs": "rust",
  ".js": "javascript",
  ".ts": "typescript",
  ".sh": "shell",
  ".go": "go",
  ".md": "markdown",
};

function template(language: string, description: string, name: string): string {
  const comment = (mark: string): string =>
    description
      .split("\n")
      .map((line) => `${mark} ${line}`.trimEnd())
      .join("\n");
  switch (language) {
    case "python":
      return `${comment("#")}\n\n\ndef main():\n    raise NotImplementedError\n\n\nif __name__ == "__main__":\n    main()\n`;
    case "rust":
      return `${comment("//!")}\n\nfn main() {\n    todo!()\n}\n`;
    case "javascript":
    case "typescript":
      return `${comment("//")}\n\nexport function main() {\n  throw new Error("not implemented");\n}\n`;
    case "shell":
      return `#!/bin/sh\n${comment("#")}\nset -eu\n`;
    case "go":
      return `${comment("//")}\npackage main\n\nfunc main() {\n}\n`;
    case "markdown":
      return `# ${name}\n\n${description}\n`;
    default:
      return `${description}\n`;
  }
}

function skeleton(name: string, type: ProjectType, description: string): Readonly<Record<string, string>> {
  const readme = { "README.md": `# ${name}\n\n${description}\n` };
  switch (type) {
    case "rust":
      return {
        ...readme,
        "Cargo.toml": `[package]\nname = "${name}"\nversion = "0.1.0"\nedition = "2021"\n`,
        "src/main.rs": template("rust", description, name),
        ".gitignore": "target/\n",
      };
    case "python":
      return {
        ...readme,
        "pyproject.toml": `[project]\nname = "${name}"\nversion = "0.1.0"\ndescription = ${JSON.stringify(description)}\n`,
        [`${name.replaceAll("-", "_")}/__init__.py`]: "",
        [`${name.replaceAll("-", "_")}/main.py`]: template("python", description, name),
        ".gitignore": "__pycache__/\n",
      };
    case "node":
      return {
        ...readme,
        "package.json": `${JSON.stringify({ name: name.toLowerCase(), version: "0.1.0", description, type: "module", main: "src/index.js" }, null, 2)}\n`,
        "src/index.js": template("javascript", description, name),
        ".gitignore": "node_modules/\n",
      };
    case "generic":
      return { ...readme, ".gitignore": "" };
  }
}
