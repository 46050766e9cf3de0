/**
 * `/_metrics`, as BeamLine's C gateway reads it (BeamLine, backpressure): of the first 8 KiB, the number behind the first mention of one name. So its
 * samples come before everything else, and without HELP and TYPE lines, which are mentions too. To Prometheus that is a metric without a type.
 */
const LOOKED_FOR = "router_intake_backpressure_active";

/** @param text in Prometheus' text format. The sample of the decide subject, where there is one, comes first of all. */
export function forGateways(text: string): string {
  const lines = text.split("\n");
  const samples = lines.filter((line) => line.startsWith(LOOKED_FOR));
  if (samples.length === 0) return text;
  const rest = lines.filter((line) => !line.includes(LOOKED_FOR));
  const isDecide = (line: string): boolean => line.includes('.v1.decide"');
  return [...samples.toSorted((a, b) => Number(isDecide(b)) - Number(isDecide(a))), ...rest].join("\n");
}
