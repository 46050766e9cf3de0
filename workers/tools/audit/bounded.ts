/** What of a call goes into the ledger: redacted and of bounded size. */
import { redactText, redactValue } from "../../../runtime/redact.ts";
import { withoutSecrets } from "../secrets.ts";

/** Characters of a text field. */
const MAX_TEXT = 2_048;
/** Characters of the name of an agent or a task. */
const MAX_NAME = 1_024;
/** Characters of an input or output. */
const MAX_JSON = 4_096;
/** Beyond this an output is not taken apart to be redacted: it is cut first. */
const MAX_PARSED = 64 * 1024;

const cut = (text: string, limit: number): string =>
  text.length <= limit ? text : `${text.slice(0, limit)}… (${text.length} characters)`;

export const bounded = {
  /** A name as it is, cut only where no name would pass. */
  name: (text: string): string => cut(text, MAX_NAME),

  /** A text, redacted. */
  text: (text: string): string =>
    cut(redactText(text.length > MAX_PARSED ? text.slice(0, MAX_PARSED) : text), MAX_TEXT),

  /** A value as JSON text, secrets out. */
  json(value: unknown, secrets: readonly string[]): string {
    return cut(withoutSecrets(JSON.stringify(redactValue(value)), secrets), MAX_JSON);
  },

  /** JSON text, secrets out. */
  jsonText(text: string, secrets: readonly string[]): string {
    if (text.length > MAX_PARSED) return cut(redactText(withoutSecrets(text.slice(0, MAX_PARSED), secrets)), MAX_JSON);
    try {
      return bounded.json(JSON.parse(text), secrets);
    } catch {
      return bounded.text(withoutSecrets(text, secrets));
    }
  },
};
