import { mkdirSync, mkdtempDisposableSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { rounds } from "./apt.ts";
import { baseSuite, parseListFile, parseSourcesFile, sourcesFile } from "./apt-sources.ts";

const mirror = { uri: "http://mirror.example/debian", suite: "bookworm", components: ["main"] };

describe("one-line files", () => {
  test("an entry with options keeps its key, and nothing that weakens it", () => {
    expect(
      parseListFile(
        "deb [arch=amd64 trusted=yes signed-by=/k.gpg allow-insecure=yes] http://mirror.example/debian bookworm main contrib # x",
      ),
    ).toEqual([{ ...mirror, components: ["main", "contrib"], signedBy: "/k.gpg" }]);
  });

  test("comments, sources, discs, exact paths and nonsense are left out", () => {
    const text = `
      # deb http://mirror.example/debian bookworm main
      deb-src http://mirror.example/debian bookworm main
      deb cdrom:[Debian 12]/ bookworm main
      deb http://other.example/repo ./
      deb http://only.example
      deb http://mirror.example/debian bookworm main`;
    expect(parseListFile(text)).toEqual([mirror]);
  });
});

describe("deb822 files", () => {
  test("every URI and suite of a stanza becomes a source", () => {
    const text = `
Types: deb deb-src
# a comment between fields
URIs: http://a.example/debian http://b.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /k.gpg

Types: deb
URIs: http://off.example/debian
Suites: bookworm
Components: main
Enabled: no

Types: deb-src
URIs: http://src.example/debian
Suites: bookworm
Components: main
`;
    const found = parseSourcesFile(text);
    expect(found.map(({ uri, suite }) => `${uri} ${suite}`)).toEqual([
      "http://a.example/debian bookworm",
      "http://a.example/debian bookworm-updates",
      "http://b.example/debian bookworm",
      "http://b.example/debian bookworm-updates",
    ]);
    expect(found.every(({ signedBy }) => signedBy === "/k.gpg")).toBe(true);
  });

  test("a key in place survives the way back into a file", () => {
    const key = "\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mQINB\n -----END PGP PUBLIC KEY BLOCK-----";
    const source = { ...mirror, signedBy: key };
    expect(parseSourcesFile(sourcesFile([source, mirror]))).toEqual([source, mirror]);
  });
});

test.each(["bookworm", "bookworm-security", "bookworm-updates", "bookworm/updates", "bookworm-backports"])(
  "%s belongs to bookworm",
  (suite) => expect(baseSuite(suite)).toBe("bookworm"),
);

describe("where to look", () => {
  const debian = `ID=debian\nVERSION_CODENAME=bookworm\n`;
  const sources = `
Types: deb
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://security.example/debian-security
Suites: bookworm-security
Components: main

Types: deb
URIs: http://vendor.example/apt
Suites: bookworm
Components: main
Signed-By: /usr/share/keyrings/vendor.gpg
`;

  function machine(osRelease: string, files: Record<string, string>) {
    const directory = mkdtempDisposableSync(join(tmpdir(), "beamline-etc-"));
    mkdirSync(join(directory.path, "sources.list.d"));
    writeFileSync(join(directory.path, "os-release"), osRelease);
    for (const [name, text] of Object.entries(files)) writeFileSync(join(directory.path, name), text);
    return directory;
  }

  test("the configured suites first, then the next release at the same mirror; never another publisher's, never without a key", () => {
    using etc = machine(debian, { "sources.list.d/debian.sources": sources });
    const [configured, next, ...more] = rounds(etc.path, join(etc.path, "os-release"));
    expect(configured?.sources.map(({ suite }) => suite)).toEqual([
      "bookworm",
      "bookworm-updates",
      "bookworm-security",
    ]);
    expect(next?.sources.map(({ uri, suite }) => `${uri} ${suite}`)).toEqual(["http://mirror.example/debian testing"]);
    expect(more).toEqual([]);
    const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg";
    expect([...(configured?.sources ?? []), ...(next?.sources ?? [])].map(({ signedBy }) => signedBy)).toEqual(
      Array(4).fill(keyring),
    );
  });

  test("Ubuntu's next release is devel", () => {
    using etc = machine(`ID=ubuntu\nID_LIKE=debian\nVERSION_CODENAME=noble\n`, {
      "sources.list": "deb http://mirror.example/ubuntu noble main universe\n",
    });
    expect(
      rounds(etc.path, join(etc.path, "os-release")).map(({ sources }) => sources.map(({ suite }) => suite)),
    ).toEqual([["noble"], ["devel"]]);
  });

  test("nowhere on a system without apt", () => {
    using etc = machine(`ID=fedora\n`, {});
    expect(rounds(etc.path, join(etc.path, "os-release"))).toEqual([]);
  });
});
