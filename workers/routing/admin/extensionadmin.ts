/**
 * The registry of extensions from outside, on admin subjects of our own (the contract has the registry and its records, but no way to fill it):
 *
 * - `upsert_extension` `{tenant_id, extension: {id, type, subject?, timeout_ms?, retry?, enabled?, config?, metadata?}}` → `{ok}`
 * - `delete_extension` `{tenant_id, extension_id}` → `{ok}`
 * - `list_extensions` `{tenant_id}` → `{extensions: [...]}`
 *
 * Tenant `*` registers for everybody.
 */
import type { UnaryEndpoint } from "../../../bus/endpoint.ts";
import { adminEndpoint } from "./admin.ts";
import type { AdminCheck } from "./adminkey.ts";
import { checkExtensionId, readExtension } from "../extensions/extension.ts";
import type { ExtensionRegistry } from "../extensions/extensions.nats.ts";
import { tenantIn } from "./handlers.ts";

export function extensionAdmin(registry: ExtensionRegistry, check: AdminCheck): UnaryEndpoint[] {
  return [
    adminEndpoint("upsert_extension", check, async (body, context) => {
      await registry.put(tenantIn(body, context), readExtension(body["extension"], "extension."));
      return { ok: true };
    }),
    adminEndpoint("delete_extension", check, async (body, context) => {
      await registry.delete(tenantIn(body, context), checkExtensionId(body["extension_id"], "extension_id"));
      return { ok: true };
    }),
    adminEndpoint("list_extensions", check, async (body, context) => ({
      extensions: registry.list(tenantIn(body, context)).map(({ extension }) => extension),
    })),
  ];
}
