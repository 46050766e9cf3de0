/** No extension is registered. In place until the registry is there. */
import type { ExtensionStates } from "../admin/handlers.ts";

export const noExtensions: ExtensionStates = { health: () => ({}), circuits: () => ({}) };
