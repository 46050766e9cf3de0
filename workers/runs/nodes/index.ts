/** The node types this host has. */
import type { NodeType } from "../engine/nodetype.ts";
import { basicNodes } from "./basic.ts";
import { childNodes, type Children } from "./children.ts";
import { gateNodes } from "./gates.ts";
import { outsideNodes, type Outside } from "./outside.ts";

/** All of them by type id; `extra` may add types, and replace none. */
export function nodeTypes(
  children: Children,
  outside: Outside,
  extra: readonly NodeType[] = [],
): ReadonlyMap<string, NodeType> {
  const types = new Map<string, NodeType>();
  for (const type of [...basicNodes, ...gateNodes, ...childNodes(children), ...outsideNodes(outside), ...extra]) {
    if (types.has(type.typeId)) throw new Error(`node type ${type.typeId} is registered twice`);
    types.set(type.typeId, type);
  }
  return types;
}
