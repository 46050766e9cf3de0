import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { facts } from "./catalogue/facts.ts";
import { PAGE, toolsPage } from "./docs.ts";

test("the page of tools is current: node workers/tools/docs.ts", async () => {
  expect(readFileSync(PAGE, "utf8")).toBe(await toolsPage());
});

test("the page has every tool", async () => {
  const page = await toolsPage();
  for (const name of Object.keys(facts)) expect(page).toContain(`### \`${name}\``);
});
