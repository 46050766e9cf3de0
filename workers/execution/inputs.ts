/** The input of a job: the payload itself, or what `payload_ref` points to, which goes first when both are there (BeamLine, ExecAssignment). */
import { ObjectStore } from "../../bus/objects.ts";
import type { Bus } from "../../bus/connect.ts";
import type { Assignment } from "../../contracts/execution/assignment.ts";
import { BeamlineError } from "../../contracts/errors.ts";
import { objects } from "../../contracts/streams.ts";
import type { Egress } from "../../runtime/egress.ts";
import { StepFailure } from "./step.ts";

export interface Inputs {
  /** Throws `StepFailure`. */
  of(job: Assignment["job"], signal: AbortSignal): Promise<unknown>;
}

const MAX_BYTES = 16 * 1024 * 1024;

/**
 * `object://payloads/<name>` is read from the object store, `http(s)://` through the SSRF guard. Other schemes need the payload beside them; without
 * one they are `INVALID_INPUT`.
 */
export function busInputs(bus: Bus, egress: Egress): Inputs {
  return {
    async of({ payload_ref: ref, payload }, signal) {
      if (ref === "") return payload;
      try {
        if (ref.startsWith(`object://${objects.payloads.name}/`))
          return valueOf(await stored(bus, ref.slice(`object://${objects.payloads.name}/`.length), signal));
        if (/^https?:\/\//i.test(ref)) {
          const answer = await egress.fetch(ref, { signal, maxBytes: MAX_BYTES, overflow: "fail" });
          if (answer.status !== 200)
            throw new StepFailure("RESOURCE_UNAVAILABLE", `job.payload_ref answered HTTP ${answer.status}`, {
              retryable: answer.status >= 500,
            });
          return valueOf(answer.body);
        }
      } catch (thrown) {
        throw StepFailure.from(thrown);
      }
      if (payload !== undefined) return payload;
      throw new StepFailure(
        "INVALID_INPUT",
        "job.payload_ref has a scheme this worker cannot read, and job.payload is not set",
      );
    },
  };
}

async function stored(bus: Bus, name: string, signal: AbortSignal): Promise<Buffer> {
  const store = await ObjectStore.open(bus, objects.payloads);
  const { size, chunks } = await store.read(name);
  if (size > MAX_BYTES)
    throw new BeamlineError("message_too_large", `job.payload_ref has more than ${MAX_BYTES} bytes`);
  const parts: Uint8Array[] = [];
  for await (const chunk of chunks) {
    signal.throwIfAborted();
    parts.push(chunk);
  }
  return Buffer.concat(parts);
}

/** JSON as its value, other text as it is. */
function valueOf(bytes: Buffer): unknown {
  const text = bytes.toString("utf8");
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}
