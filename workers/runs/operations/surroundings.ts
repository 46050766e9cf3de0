/** Artifacts, webhooks, audit. */
import { BeamlineError } from "../../../contracts/errors.ts";
import { permit, type Answer, type Asker } from "../caller.ts";
import type { Artifact } from "../artifacts.ts";
import type { RunsPorts } from "../ports.ts";

/** `GET /v1/runs/{id}/artifacts/{aid}`. Throws `artifact_not_found`, also for a run that is not there. */
export async function getArtifact(
  ports: RunsPorts,
  asker: Asker,
  runId: string,
  artifactId: string,
): Promise<Artifact> {
  permit(asker, "artifacts:read");
  return ports.artifacts.get(asker.tenant, runId, artifactId);
}

/** The same as JSON: text as it is, other content in base64. */
export async function artifactAnswer(ports: RunsPorts, asker: Asker, runId: string, id: string): Promise<Answer> {
  const { artifactId, contentType, content } = await getArtifact(ports, asker, runId, id);
  const bytes = Buffer.from(content);
  const readable = /^text\/|json|xml/.test(contentType);
  return {
    status: 200,
    body: {
      artifactId,
      runId,
      contentType,
      size: bytes.length,
      encoding: readable ? "utf-8" : "base64",
      content: bytes.toString(readable ? "utf8" : "base64"),
    },
  };
}
export async function registerWebhook(_ports: RunsPorts, _asker: Asker, _given: unknown): Promise<Answer> {
  throw new BeamlineError("unimplemented", "not yet");
}
export async function unregisterWebhook(
  _ports: RunsPorts,
  _asker: Asker,
  _id: string,
  _query: unknown,
): Promise<Answer> {
  throw new BeamlineError("unimplemented", "not yet");
}
export async function listWebhooks(_ports: RunsPorts, _asker: Asker): Promise<Answer> {
  throw new BeamlineError("unimplemented", "not yet");
}
export async function redriveWebhook(_ports: RunsPorts, _asker: Asker, _id: string): Promise<Answer> {
  throw new BeamlineError("unimplemented", "not yet");
}
export async function verifyAudit(_ports: RunsPorts, _asker: Asker, _query: unknown): Promise<Answer> {
  throw new BeamlineError("unimplemented", "not yet");
}
