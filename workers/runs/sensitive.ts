/** Masking events before they are stored (OpenWOP, privacy and redaction: persisted events are a masked surface). */
import { objectOr, isObject } from "../../contracts/openwop/json.ts";
import type { RunEvent, RunRecord } from "../../contracts/openwop/log.ts";
import { masked, maskMembers } from "../../contracts/openwop/mask.ts";

const sensitiveNames = new WeakMap<RunRecord, ReadonlySet<string>>();

function namesOf(record: RunRecord): ReadonlySet<string> {
  let names = sensitiveNames.get(record);
  if (names === undefined) {
    names = new Set(record.variables.filter(({ sensitive }) => sensitive === true).map(({ name }) => name));
    sensitiveNames.set(record, names);
  }
  return names;
}

/** The payload as it may be stored: the event's own object when nothing in it is sensitive. */
export function maskEvent(record: RunRecord, event: RunEvent): unknown {
  if (record.masking === "passthrough" || !isObject(event.payload)) return event.payload;
  const { payload } = event;
  const names = namesOf(record);
  switch (event.type) {
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
      const ports = record.sensitivePorts?.[event.nodeId ?? ""];
      const hidden = ports === undefined ? names : new Set([...names, ...ports]);
      const outputs = objectOr(payload["outputs"]);
      const shown = maskMembers(outputs, hidden, record.masking);
      return shown === outputs ? payload : { ...payload, outputs: shown };
    }
    default:
      return payload;
  }
}
