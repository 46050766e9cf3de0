/** placeholder replaced below */
import type { Bus } from "../../bus/connect.ts";
import type { Clock } from "../../runtime/clock.ts";
import type { Asker } from "./caller.ts";
import type { AuditKey } from "./secrets.ts";
export class Audit {
  static async open(_bus: Bus, _key: AuditKey, _clock: Clock): Promise<Audit> {
    return new Audit();
  }
  note(_asker: Asker, _action: string, _target: string, _details: Readonly<Record<string, unknown>>): void {
    return undefined;
  }
  async stop(): Promise<void> {}
}
