/** stand-in, replaced below */
import type { Call, Json } from "./tool.ts";
export interface McpServers {
  call(address: string, input: Json, call: Call): Promise<Json>;
}
