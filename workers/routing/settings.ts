/** Settings of the routing worker. The admin key is the one the edge and the stack know by that name. */
import { bool, int, list, optional, secret } from "../../runtime/setting.ts";
import { workerSettings } from "../../runtime/settings.ts";
import { limits } from "./policies/policy.ts";
import { assignSettings } from "../assignsubjects.ts";
import type { Window } from "./ports.ts";

export const routingSettings = {
  ...assignSettings,
  BEAMLINE_ROUTER_ADMIN_API_KEY: workerSettings.BEAMLINE_ROUTER_ADMIN_API_KEY,
  BEAMLINE_ROUTER_SEED_DEFAULT: bool(
    true,
    "Whether a policy named default is made for tenants without one of their own, if nobody made it yet.",
  ),
  BEAMLINE_ROUTER_TENANTS: list(optional, "Tenants that may route; all when not given."),
  BEAMLINE_ROUTER_POLICY_QUOTA: int(limits.policies, "Policies a tenant may have.", { min: 1, max: 100_000 }),
  BEAMLINE_ROUTER_DEAD_LETTERS: bool(
    true,
    "Whether requests that intake refused are put on the dead-letter subject, as a digest with the reason.",
  ),
  BEAMLINE_ROUTER_TENANT_LIMIT: int(
    optional,
    "Decisions a tenant may ask for in a minute; no limit, and no look at Redis for it, when not given.",
    { min: 1 },
  ),
  BEAMLINE_ROUTER_TENANT_LIMITS: list([], "Other limits per minute of single tenants, as tenant=number.", {
    each: (item) => /^[\w.:-]{1,256}=[1-9]\d{0,14}$/.test(item),
    items: "tenant=number",
  }),
  BEAMLINE_ROUTER_TENANT_QUOTA: int(
    optional,
    "Decisions a tenant may ask for in a day (UTC); no limit when not given.",
    {
      min: 1,
    },
  ),
  BEAMLINE_ROUTER_ASSIGNMENTS: bool(true, "Whether decisions that ask for it are handed on to execution workers."),
  BEAMLINE_ROUTER_ASSIGNMENT_TENANTS: list(optional, "Tenants whose decisions are handed on; all when not given."),
  BEAMLINE_ROUTER_CONTROL: bool(false, "Whether the control subjects of a local router are answered."),
  BEAMLINE_ROUTER_CONTROL_TOKEN: secret(
    optional,
    "What callers of the control subjects must bring; nothing when not given.",
    {
      pattern: /^\S{8,}$/,
      expected: "8 or more characters",
    },
  ),
};

const MINUTE = 60;
const DAY = 24 * 60 * 60;
const none: readonly Window[] = [];

/** The windows of each tenant; undefined when nobody has any. */
export function windowsOf(
  perMinute: number | undefined,
  ofTenants: readonly string[],
  perDay: number | undefined,
): ((tenant: string) => readonly Window[]) | undefined {
  if (perMinute === undefined && ofTenants.length === 0 && perDay === undefined) return undefined;
  const windows = (max: number | undefined): readonly Window[] => [
    ...(max === undefined ? none : [{ scope: "tenant", seconds: MINUTE, max } as const]),
    ...(perDay === undefined ? none : [{ scope: "quota", seconds: DAY, max: perDay } as const]),
  ];
  const byTenant = new Map(
    ofTenants.map((text) => {
      const [tenant = "", max] = text.split("=");
      return [tenant, windows(Number(max))];
    }),
  );
  const others = windows(perMinute);
  return (tenant) => byTenant.get(tenant) ?? others;
}
