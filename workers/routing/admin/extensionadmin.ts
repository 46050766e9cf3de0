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
import type { JsonObject } from "../../../contracts/codec.ts";
import { adminEndpoint } from "./admin.ts";
import type { AdminCheck } from "./adminkey.ts";
import { checkExtensionId, readExtension } from "../extensions/extension.ts";
import type { ExtensionRegistry } from "../extensions/extensions.nats.ts";
import { tenantOf } from "./handlers.ts";

export function extensionAdmin(registry: ExtensionRegistry, check: AdminCheck): UnaryEndpoint[] {
  return [
    adminEndpoint("upsert_extension", check, async (body, context) => {
      await registry.put(tenantOf(named(body), context), readExtension(body["extension"], "extension."));
      return { ok: true };
    }),
    adminEndpoint("delete_extension", check, async (body, context) => {
      await registry.delete(tenantOf(named(body), context), checkExtensionId(body["extension_id"], "extension_id"));
      return { ok: true };
    }),
    adminEndpoint("list_extensions", check, async (body, context) => ({
      extensions: registry.list(tenantOf(named(body), context)).map(({ extension }) => extension),
    })),
  ];
}

function named({ tenant_id }: JsonObject): { tenant_id: string } {
  return { tenant_id: typeof tenant_id === "string" ? tenant_id : "" };
}
