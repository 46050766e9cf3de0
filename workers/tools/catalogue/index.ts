/** Every built-in tool, by full name. A namespace that lacks one of its tools does not compile. */
import type { Handler } from "../tool.ts";
import type { ToolName } from "./facts.ts";
import { fs } from "./fs.ts";

export const catalogue = { ...fs } as unknown as Readonly<Record<ToolName, Handler>>;
