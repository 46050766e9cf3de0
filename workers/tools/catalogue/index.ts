/** Every built-in tool, by full name. A namespace that lacks one of its tools does not compile. */
import type { Handler } from "../tool.ts";
import { code } from "./code.ts";
import { container } from "./container.ts";
import { email } from "./email.ts";
import type { ToolName } from "./facts.ts";
import { firewall } from "./firewall.ts";
import { fs } from "./fs.ts";
import { git } from "./git.ts";
import { hw } from "./hw.ts";
import { monitor } from "./monitor.ts";
import { net } from "./net.ts";
import { pkg } from "./pkg.ts";
import { plugin } from "./plugin.ts";
import { process } from "./process.ts";
import { sec } from "./sec.ts";
import { self } from "./self.ts";
import { service } from "./service.ts";
import { web } from "./web.ts";

export const catalogue: Readonly<Record<ToolName, Handler>> = {
  ...fs,
  ...process,
  ...service,
  ...net,
  ...firewall,
  ...pkg,
  ...sec,
  ...monitor,
  ...hw,
  ...web,
  ...git,
  ...code,
  ...self,
  ...plugin,
  ...container,
  ...email,
};
