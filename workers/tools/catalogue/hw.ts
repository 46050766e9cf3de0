/** Hardware (aiOS tools, namespace hw). */
import { readdir, readFile } from "node:fs/promises";
import { cpus, totalmem } from "node:os";
import { int, list, num, object, str } from "../schema.ts";
import { tool, type Call, type Namespace } from "../tool.ts";

const SECTOR_BYTES = 512;
const GIB = 1024 ** 3;

export const hw: Namespace<"hw"> = {
  "hw.info": tool({
    about: "Processor, memory, graphics and disks of the host.",
    input: object(),
    output: object({ cpu: str(), ram_mb: int(), gpu: str(), storage: list(object({ name: str(), size_gb: num() })) }),
    async run(_input, call) {
      return {
        cpu: cpus()[0]?.model.trim() ?? "unknown",
        ram_mb: Math.floor(totalmem() / 1024 / 1024),
        gpu: await graphics(call),
        storage: await disks(),
      };
    },
  }),
};

async function graphics(call: Call): Promise<string> {
  if ((await call.host.programs.find("lspci")) !== undefined) {
    const { stdout } = await call.host.programs.run("lspci", [], { signal: call.signal });
    const line = stdout.split("\n").find((each) => /VGA|3D controller|Display/.test(each));
    if (line !== undefined) return line.slice(line.indexOf(": ") + 2).trim();
  }
  const cards = (await readdir("/sys/class/drm").catch(() => [])).filter((name) => /^card\d+$/.test(name));
  return cards.length === 0 ? "none" : cards.join(", ");
}

async function disks(): Promise<{ name: string; size_gb: number }[]> {
  const names = (await readdir("/sys/block").catch(() => []))
    .filter((name) => !/^(loop|ram|zram|dm-|sr)/.test(name))
    .sort();
  return Promise.all(
    names.map(async (name) => {
      const sectors = Number((await readFile(`/sys/block/${name}/size`, "utf8").catch(() => "0")).trim());
      return { name, size_gb: Math.round(((sectors * SECTOR_BYTES) / GIB) * 100) / 100 };
    }),
  );
}
