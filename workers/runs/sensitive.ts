/** Masking events before they are stored (OpenWOP, privacy and redaction: persisted events are a masked surface). */
import { objectOr, isObject, type Json } from "../../contracts/openwop/json.ts";
import type { RunEvent, RunRecord } from "../../contracts/openwop/log.ts";
import { masked, maskMembers, scrub, sensitiveTexts } from "../../contracts/openwop/mask.ts";

interface Sensitive {
  readonly names: ReadonlySet<string>;
  /** Values of sensitive inputs and defaults, wherever they turn up. */
  readonly texts: readonly string[];
}

const sensitiveNames = new WeakMap<RunRecord, Sensitive>();

function sensitiveIn(record: RunRecord): Sensitive {
  let found = sensitiveNames.get(record);
  if (found === undefined) {
    const names = new Set(record.variables.filter(({ sensitive }) => sensitive === true).map(({ name }) => name));
    const defaults = Object.fromEntries(record.variables.map(({ name, defaultValue }) => [name, defaultValue]));
    found = { names, texts: sensitiveTexts(names, { ...defaults, ...record.inputs }) };
    sensitiveNames.set(record, found);
  }
  return found;
}

/**
 * The payload as it may be stored: the event's own object when nothing in it is sensitive. `more` are texts that have become secret since the
 * run was started.
 */
export function maskEvent(record: RunRecord, event: RunEvent, more: readonly string[] = []): unknown {
  if (record.masking === "passthrough" || !isObject(event.payload)) return event.payload;
  const { payload } = event;
  const { names, texts } = sensitiveIn(record);
  const shown = maskNamed(record, event.type, event.nodeId, payload, names);
  return scrub(shown, more.length === 0 ? texts : [...texts, ...more]);
}

/** What is declared sensitive by its name. */
function maskNamed(
  record: RunRecord,
  type: string,
  nodeId: string | undefined,
  payload: Json,
  names: ReadonlySet<string>,
): Json {
  switch (type) {
    case "run.started": {
      const inputs = objectOr(payload["inputs"]);
      const shown = maskMembers(inputs, names, record.masking);
      return shown === inputs ? payload : { ...payload, inputs: shown };
    }
    case "variable.changed": {
      if (!names.has(String(payload["name"]))) return payload;
      return {
        ...payload,
        ...("previous" in payload && { previous: masked(payload["previous"], record.masking) }),
        next: masked(payload["next"], record.masking),
      };
    }
    case "channel.written": {
      const channel = record.channels[String(payload["channel"])];
      return channel?.sensitive === true ? { ...payload, value: masked(payload["value"], record.masking) } : payload;
    }
    case "node.completed": {
      const ports = record.sensitivePorts?.[nodeId ?? ""];
      const hidden = ports === undefined ? names : new Set([...names, ...ports]);
      const outputs = objectOr(payload["outputs"]);
      const shown = maskMembers(outputs, hidden, record.masking);
      return shown === outputs ? payload : { ...payload, outputs: shown };
    }
    case "run.completed": {
      const outputs = Object.entries(objectOr(payload["outputs"])).map(([id, own]) => {
        const ports = record.sensitivePorts?.[id] ?? [];
        return [id, maskMembers(objectOr(own), new Set([...names, ...ports]), record.masking)] as const;
      });
      if (outputs.length === 0 || (names.size === 0 && record.sensitivePorts === undefined)) return payload;
      return { ...payload, outputs: Object.fromEntries(outputs) };
    }
    default:
      return payload;
  }
}
