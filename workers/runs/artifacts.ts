/** Files that runs make, in the object store (OpenWOP, artifacts). */
import type { Bus } from "../../bus/connect.ts";
import type { ObjectStore } from "../../bus/objects.ts";
import { retrying } from "../../bus/retrying.ts";
import { BeamlineError } from "../../contracts/errors.ts";
import type { NewEvent } from "../../contracts/openwop/log.ts";

export interface Artifact {
  readonly artifactId: string;
  readonly contentType: string;
  readonly content: Uint8Array;
}

/** Largest artifact, bytes: what fits into one answer. */
export const MAX_ARTIFACT = 4 * 1024 * 1024;
/** How long the bus may be away while a file is stored, milliseconds. */
const AWAY_MS = 60_000;

export class Artifacts {
  readonly #bus: Bus;
  readonly #store: ObjectStore;

  constructor(bus: Bus, store: ObjectStore) {
    this.#bus = bus;
    this.#store = store;
  }

  /**
   * Stores a file of a run, once the bus is back when it is away; the same id again replaces it. Gives the event that tells of it. Throws
   * `message_too_large`.
   */
  async put(
    tenant: string,
    runId: string,
    nodeId: string,
    artifact: Artifact,
    artifactType: string,
    summary?: string,
  ): Promise<NewEvent> {
    const { artifactId, contentType, content } = artifact;
    if (content.length > MAX_ARTIFACT)
      throw new BeamlineError("message_too_large", `artifact ${artifactId} is larger than ${MAX_ARTIFACT} bytes`);
    // The type goes first, a line of its own, so that content and type are replaced together.
    const bytes = Buffer.concat([Buffer.from(`${contentType.replaceAll(/[\r\n]/g, " ")}\n`), content]);
    const name = nameOf(tenant, runId, artifactId);
    await retrying(this.#bus, { timeoutMs: AWAY_MS }, () => this.#store.put(name, bytes));
    return {
      type: "artifact.created",
      nodeId,
      payload: { artifactId, artifactType, nodeId, ...(summary !== undefined && { summary }) },
    };
  }

  /** Throws `artifact_not_found`. */
  async get(tenant: string, runId: string, artifactId: string): Promise<Artifact> {
    let bytes: Uint8Array;
    try {
      bytes = await this.#store.bytes(nameOf(tenant, runId, artifactId), { maxBytes: MAX_ARTIFACT + 1_024 });
    } catch (thrown) {
      if (thrown instanceof BeamlineError && thrown.code === "not_found")
        throw new BeamlineError("artifact_not_found", `there is no artifact ${artifactId}`);
      throw thrown;
    }
    const end = bytes.indexOf(10);
    return {
      artifactId,
      contentType: Buffer.from(bytes.subarray(0, end)).toString("utf8"),
      content: bytes.subarray(end + 1),
    };
  }
}

function nameOf(tenant: string, runId: string, artifactId: string): string {
  return [tenant, runId, artifactId].map(encodeURIComponent).join("/");
}
