/** Three numbers, most significant first. */
export type Version = readonly [major: number, minor: number, patch: number];

/**
 * The first dotted number in a text: `nats-server: v2.15.1`, `Redis server v=7.0.15 sha=…`, `5:7.0.15-1~deb12u10`
 * (a package's epoch is not part of the version), `2.12.0-preview.1`. Undefined when there is none.
 */
export function parseVersion(text: string): Version | undefined {
  const found = /(\d+)\.(\d+)(?:\.(\d+))?/.exec(text.replace(/^\d+:/, ""));
  if (found === null) return undefined;
  return [Number(found[1]), Number(found[2]), Number(found[3] ?? 0)];
}

/** Negative, zero or positive, as `Array.sort` wants it. */
export function compareVersions(left: Version, right: Version): number {
  return left[0] - right[0] || left[1] - right[1] || left[2] - right[2];
}

/** `2.15.1` */
export function formatVersion(version: Version): string {
  return version.join(".");
}

/** Is `found` there and at least `needed`? */
export function isAtLeast(found: Version | undefined, needed: Version): found is Version {
  return found !== undefined && compareVersions(found, needed) >= 0;
}
