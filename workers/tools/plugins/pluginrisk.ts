/** How risky a script looks, by what is written in it (aiOS tools, 1.7: weights per line, capped at 100, 70 rejects). */

/** Scores from here on are refused. */
export const TOO_RISKY = 70;

const weights: Readonly<Record<string, number>> = {
  "os.system(": 30,
  "os.setuid(": 30,
  "os.setgid(": 30,
  "eval(": 25,
  "exec(": 25,
  "subprocess.call(": 20,
  "subprocess.Popen(": 20,
  "__import__(": 20,
  "shutil.rmtree(": 20,
  "ctypes.": 20,
  "subprocess.run(": 15,
  "compile(": 15,
  "importlib.import_module(": 15,
  "os.remove(": 10,
  "os.unlink(": 10,
  "os.rmdir(": 10,
  "socket.socket(": 10,
  "os.chmod(": 10,
  "os.chown(": 10,
  "open(": 5,
};

/** The score, and which patterns made it. Comment lines do not count. */
export function riskOf(code: string): { readonly score: number; readonly because: readonly string[] } {
  let score = 0;
  const because = new Set<string>();
  for (const line of code.split("\n")) {
    if (line.trimStart().startsWith("#")) continue;
    for (const [pattern, weight] of Object.entries(weights)) {
      if (!line.includes(pattern)) continue;
      score += weight;
      because.add(pattern.replace(/[(.]$/, ""));
    }
  }
  return { score: Math.min(100, score), because: [...because] };
}
