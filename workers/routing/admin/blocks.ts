/**
 * The registry of blocks behind the REST gateway (BeamLine, REST gateway, registry), in the bucket `blocks`, a tenant's own. The contract has the routes and
 * their statuses; the subjects are ours, `beamline.router.v1.registry.<word>`:
 *
 * - `create` `{tenant_id, type, version, block}` → `{block, created}`; the same block again is `created: false`, another is `already_exists`
 * - `replace` the same → `{block}`; `not_found` when there is none
 * - `delete`, `get` `{tenant_id, type, version}` → `{type, version}`, `{block}`
 * - `list` `{tenant_id, type?}` → `{blocks}`
 */
import type { Bus } from "../../../bus/connect.ts";
import { parseJson } from "../../../bus/call.ts";
import { requestEndpoint, type UnaryEndpoint } from "../../../bus/endpoint.ts";
import { keyOf, tokenOf } from "../../../bus/keys.ts";
import { Bucket, jsonCodec } from "../../../bus/keyvalue.ts";
import type { JsonObject } from "../../../contracts/codec.ts";
import { BeamlineError, invalidArgument } from "../../../contracts/errors.ts";
import { buckets } from "../../../contracts/streams.ts";
import { isObject, object, optionalText, text } from "../policies/fields.ts";
import { SHARED_TENANT } from "../policies/policystore.ts";
import { tenantIn } from "./handlers.ts";

/** Largest block, bytes of its JSON. */
export const MAX_BLOCK_BYTES = 262_144;

const namePattern = /^[A-Za-z0-9_.:-]{1,128}$/;

export function blockEndpoints(bus: Bus): UnaryEndpoint[] {
  const bucket = new Bucket(bus, buckets.blocks, jsonCodec<JsonObject>());
  const stored = async (key: string): Promise<{ readonly value: JsonObject; readonly revision: number }> => {
    const entry = await bucket.get(key);
    if (entry === undefined) throw new BeamlineError("not_found", "no block of this type and version is registered");
    return entry;
  };
  return [
    endpoint("create", async (body, tenant) => {
      const { key, block } = blockIn(body, tenant);
      try {
        await bucket.create(key, block);
        return { block, created: true };
      } catch (thrown) {
        if (BeamlineError.from(thrown).code !== "already_exists") throw thrown;
      }
      const { value } = await stored(key);
      if (JSON.stringify(value) === JSON.stringify(block)) return { block, created: false };
      throw conflict("version", "another block of this type and version is registered");
    }),
    endpoint("replace", async (body, tenant) => {
      const { key, block } = blockIn(body, tenant);
      const { revision } = await stored(key);
      await bucket.update(key, block, revision);
      return { block };
    }),
    endpoint("delete", async (body, tenant) => {
      const { key, type, version } = namesIn(body, tenant);
      const { revision } = await stored(key);
      await bucket.delete(key, { revision });
      return { type, version };
    }),
    endpoint("get", async (body, tenant) => ({ block: (await stored(namesIn(body, tenant).key)).value })),
    endpoint("list", async (body, tenant) => {
      const type = optionalText(body["type"], "type") === "" ? "*" : tokenOf(nameIn(body, "type"));
      const entries = await bucket.list(`${keyOf(tenant)}.${type}.*`);
      return { blocks: entries.map(({ value }) => value) };
    }),
  ];
}

function endpoint(word: string, answer: (body: JsonObject, tenant: string) => Promise<object>): UnaryEndpoint {
  const subject = `beamline.router.v1.registry.${word}`;
  return requestEndpoint({ subject, dialect: "beamline", timeoutMs: 5_000 }, async (request, context) => {
    const body: unknown = request === "" ? {} : parseJson(request);
    if (!isObject(body)) throw invalidArgument("body", "must be a JSON object");
    const tenant = tenantIn(body, context);
    // Blocks are nobody's but a tenant's own.
    if (tenant === SHARED_TENANT) throw invalidArgument("tenant_id", "must be a tenant's own");
    return JSON.stringify(await answer(body, tenant));
  });
}

/** 409 over HTTP, told by its reason: the contract's codes have none for it. */
function conflict(field: string, message: string): BeamlineError {
  return new BeamlineError("already_exists", message, { field, details: { reason: "conflict" } });
}

function nameIn(body: JsonObject, name: string): string {
  const value = text(body[name], name, 128);
  if (!namePattern.test(value))
    throw invalidArgument(name, "must be 1 to 128 letters, digits, dots, colons, dashes or underscores");
  return value;
}

function namesIn(body: JsonObject, tenant: string): { key: string; type: string; version: string } {
  const [type, version] = [nameIn(body, "type"), nameIn(body, "version")];
  return { key: keyOf(tenant, type, version), type, version };
}

/** The block with its type and version, which its own must not contradict. Throws `already_exists`, the contract's 409. */
function blockIn(body: JsonObject, tenant: string): { key: string; block: JsonObject } {
  const { key, ...names } = namesIn(body, tenant);
  const given = object(body["block"], "block");
  for (const [name, value] of Object.entries(names))
    if (given[name] !== undefined && given[name] !== value) throw conflict(name, `${name} is not the one of the path`);
  const block = { ...given, ...names };
  if (Buffer.byteLength(JSON.stringify(block)) > MAX_BLOCK_BYTES)
    throw invalidArgument("block", `must have at most ${MAX_BLOCK_BYTES} bytes`);
  return { key, block };
}
