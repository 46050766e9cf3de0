/** Packet filter rules by nft (aiOS tools, namespace firewall). */
import { ToolFailure } from "../failure.ts";
import { bool, int, list, object, str } from "../schema.ts";
import { tool, type Call, type Json, type Namespace } from "../tool.ts";

/** nft reads its arguments as one script, so nothing may end a statement or begin a block. */
const words = (description: string) => str(description, { maxLength: 512, pattern: "^[A-Za-z0-9_.:/,@!=<> -]*$" });
const chain = str("Chain of table inet filter, or <family> <table> <chain>.", {
  minLength: 1,
  maxLength: 128,
  pattern: "^[A-Za-z0-9_]+(?: [A-Za-z0-9_]+ [A-Za-z0-9_]+)?$",
});

interface NftRule {
  readonly family: string;
  readonly table: string;
  readonly chain: string;
  readonly handle: number;
  readonly expr: readonly Json[];
}

interface Position {
  readonly chain: string;
  readonly index: number;
  /** Only when undone: the rule that was added, wherever it is by now. */
  readonly handle?: number;
}

export const firewall: Namespace<"firewall"> = {
  "firewall.rules": tool({
    about: "Rules of the packet filter, in order.",
    input: object(),
    output: object({ rules: list(object({ chain: str(), rule: str("Expressions as nft's JSON."), action: str() })) }),
    async run(_input, call) {
      return {
        rules: (await rules(call)).map((rule) => ({
          chain: rule.chain,
          rule: JSON.stringify(rule.expr),
          action: actionOf(rule),
        })),
      };
    },
  }),

  "firewall.add_rule": tool<{ chain: string; rule: string; action: string }>({
    about: "Appends a rule to a chain, for example rule 'tcp dport 22' and action 'accept'.",
    input: object({ chain, rule: words("What to match."), action: words("What to do, such as accept or drop.") }),
    output: object({ added: bool() }),
    changes: true,
    async run({ chain, rule, action }, call) {
      const target = targetOf(chain);
      const args = ["--echo", "--handle", "add", "rule", ...target, ...tokens(rule), ...tokens(action)];
      const echoed = await call.host.programs.must("nft", args, { signal: call.signal });
      const handle = Number(/# handle (\d+)/.exec(echoed)?.[1]);
      if (handle > 0) call.undo({ op: "run", tool: "firewall.delete_rule", input: { chain, handle } });
      return { added: true };
    },
  }),

  "firewall.delete_rule": tool<Position>({
    about: "Deletes a rule of a chain by its position, counted from 0.",
    input: object({ chain, index: int("", { minimum: 0 }) }),
    output: object({ deleted: bool() }),
    changes: true,
    seen: async (input, call) => JSON.stringify((await named(input, call))?.expr ?? "absent"),
    async run(input, call) {
      const { chain } = input;
      const found = await named(input, call);
      if (found === undefined) throw new ToolFailure(`firewall.delete_rule: chain ${chain} has no such rule`);
      await call.host.programs.must("nft", ["delete", "rule", ...targetOf(chain), "handle", String(found.handle)], {
        signal: call.signal,
      });
      return { deleted: true };
    },
  }),
};

async function named({ chain, index, handle }: Position, call: Call): Promise<NftRule | undefined> {
  const [family, table, name] = targetOf(chain);
  const inChain = (await rules(call)).filter(
    (rule) => rule.family === family && rule.table === table && rule.chain === name,
  );
  return call.depth > 0 && handle !== undefined ? inChain.find((rule) => rule.handle === handle) : inChain[index];
}

async function rules(call: Call): Promise<NftRule[]> {
  const text = await call.host.programs.must("nft", ["--json", "list", "ruleset"], {
    signal: call.signal,
    maxBytes: 8 * 1024 * 1024,
  });
  const { nftables } = JSON.parse(text) as { nftables: { rule?: NftRule }[] };
  return nftables.flatMap(({ rule }) => rule ?? []);
}

function actionOf({ expr }: NftRule): string {
  const last = expr.at(-1) ?? {};
  return Object.keys(last)[0] ?? "";
}

function targetOf(chain: string): [string, string, string] {
  const [family, table, name] = chain.split(" ");
  return table === undefined || name === undefined || family === undefined
    ? ["inet", "filter", chain]
    : [family, table, name];
}

function tokens(text: string): string[] {
  return text.split(" ").filter((token) => token !== "");
}
