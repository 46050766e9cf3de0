import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";

/** One place packages come from, as /etc/apt has it. */
export interface AptSource {
  readonly uri: string;
  readonly suite: string;
  readonly components: readonly string[];
  /** The `Signed-By` of the machine's own entry, whatever form it has (a path, a fingerprint, a key in place). */
  readonly signedBy?: string;
}

/**
 * The binary sources in a one-line-style file: `deb [signed-by=/path] uri suite component…`. Comments, `deb-src`, exact paths (suites that
 * end in `/`), installation discs and lines that make no sense are left out, and so is every option but `signed-by`: in particular
 * nothing is trusted without a signature.
 */
export function parseListFile(text: string): AptSource[] {
  return text.split("\n").flatMap((line): AptSource[] => {
    const found = /^\s*deb\s+(?:\[([^\]]*)\]\s*)?(\S+)\s+(\S+)\s+([^#]+)/.exec(line);
    if (found === null) return [];
    const [, options = "", uri = "", suite = "", components = ""] = found;
    const signedBy = /(?:^|\s)signed-by=(\S+)/i.exec(options)?.[1];
    return usable({ uri, suite, components: words(components), ...(signedBy === undefined ? {} : { signedBy }) });
  });
}

/** The binary sources in a deb822-style `.sources` file; one per URI and suite. Disabled stanzas are left out. */
export function parseSourcesFile(text: string): AptSource[] {
  const lines = text.split("\n").filter((line) => !line.startsWith("#"));
  return lines
    .join("\n")
    .split(/\n\s*\n/)
    .flatMap((stanza): AptSource[] => {
      const fields = readFields(stanza);
      if (!words(fields.get("types")).includes("deb") || /^(no|false|0)$/i.test(fields.get("enabled") ?? "yes"))
        return [];
      const components = words(fields.get("components"));
      const signedBy = fields.get("signed-by");
      return words(fields.get("uris")).flatMap((uri) =>
        words(fields.get("suites")).flatMap((suite) =>
          usable({ uri, suite, components, ...(signedBy === undefined ? {} : { signedBy }) }),
        ),
      );
    });
}

/** Everything the machine's /etc/apt names, in its order. Files that cannot be read are left out. */
export function configuredSources(etc = "/etc/apt"): AptSource[] {
  const parts = join(etc, "sources.list.d");
  const files = [join(etc, "sources.list"), ...list(parts).map((name) => join(parts, name))];
  return files.flatMap((path) => {
    if (path.endsWith(".list")) return parseListFile(read(path));
    return path.endsWith(".sources") ? parseSourcesFile(read(path)) : [];
  });
}

/** The sources as a deb822 file that downloads nothing but the package lists. */
export function sourcesFile(sources: readonly AptSource[]): string {
  return sources
    .map(({ uri, suite, components, signedBy }) =>
      [
        "Types: deb",
        `URIs: ${uri}`,
        `Suites: ${suite}`,
        `Components: ${components.join(" ")}`,
        "Targets: Packages",
        ...(signedBy === undefined ? [] : [`Signed-By: ${signedBy}`]),
        "",
      ].join("\n"),
    )
    .join("\n");
}

/** `bookworm` for `bookworm-security`, `bookworm-updates`, `bookworm-backports` and `bookworm/updates`. */
export function baseSuite(suite: string): string {
  return suite.replace(/(-(security|updates|backports|proposed|proposed-updates)|\/updates)$/, "");
}

function usable(source: AptSource): AptSource[] {
  return source.components.length > 0 && !source.suite.endsWith("/") && !source.uri.startsWith("cdrom:")
    ? [source]
    : [];
}

/** Field names in lower case; a continuation line stays with its field as it is written (a key in place needs that). */
function readFields(stanza: string): Map<string, string> {
  const fields = new Map<string, string>();
  let current = "";
  for (const line of stanza.split("\n")) {
    const found = /^([A-Za-z][\w-]*):\s*(.*?)\s*$/.exec(line);
    if (found !== null) {
      current = (found[1] ?? "").toLowerCase();
      fields.set(current, found[2] ?? "");
    } else if (/^\s+\S/.test(line) && current !== "") {
      fields.set(current, `${fields.get(current) ?? ""}\n${line.trimEnd()}`);
    }
  }
  return fields;
}

function words(text = ""): string[] {
  return text.split(/\s+/).filter((word) => word !== "");
}

function list(directory: string): string[] {
  try {
    return readdirSync(directory).sort();
  } catch {
    return [];
  }
}

function read(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}
