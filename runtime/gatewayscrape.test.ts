import { expect, test } from "vitest";
import { forGateways } from "./gatewayscrape.ts";

const sample = (subject: string, value: number): string =>
  `router_intake_backpressure_active{subject="${subject}"} ${value}`;

/** What BeamLine's C gateway makes of it. */
function seenByGateway(text: string): number {
  const part = Buffer.from(text).subarray(0, 8_000).toString();
  const found = part.slice(part.indexOf("router_intake_backpressure_active"));
  return Number.parseInt(found.slice(found.indexOf(" ")).trimStart(), 10);
}

test("the gateway finds whether intake is held back, wherever it stood", () => {
  const others = Array.from({ length: 500 }, (_, index) => `calls_total{route="${index}"} 1`);
  for (const value of [0, 1]) {
    const text = [
      "# HELP calls_total Calls.",
      ...others,
      "# HELP router_intake_backpressure_active 1 while intake is held back.",
      "# TYPE router_intake_backpressure_active gauge",
      sample("caf.exec.assign.v1", 1 - value),
      sample("beamline.router.v1.decide", value),
      "router_intake_inflight_messages 7",
      "",
    ].join("\n");
    const shown = forGateways(text);
    expect(seenByGateway(shown)).toBe(value);
    expect(shown.split("\n").toSorted()).toEqual(
      text
        .split("\n")
        .filter((line) => !/^# (HELP|TYPE) router_intake_backpressure_active/.test(line))
        .toSorted(),
    );
  }
  expect(forGateways("calls_total 1\n")).toBe("calls_total 1\n");
});
