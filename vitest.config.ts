import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["**/*.test.ts"],
    exclude: ["node_modules/**", ".beamline/**"],
    // The servers are found or fetched once, before any test: the first fetch takes longer than a test may.
    globalSetup: ["deploy/local/prepare.ts"],
    pool: "forks",
    testTimeout: 30_000,
    hookTimeout: 60_000,
    passWithNoTests: false,
    allowOnly: false,
  },
});
