/**
 * The built-in tools as facts: capabilities, risk, idempotency, reversibility, longest run (aiOS tools, 1.5 built-in tool catalogue).
 * What a tool does, takes and gives is beside its handler, in the file of its namespace.
 */

export type Risk = "low" | "medium" | "high" | "critical";

export interface Fact {
  /** What the definition declares, for information. */
  readonly declared: string;
  /** What an agent must hold; this decides. */
  readonly needs: string;
  readonly risk: Risk;
  /** Risk the checker goes by, where it differs from the declared one. */
  readonly checked?: Risk;
  readonly idempotent: boolean;
  readonly reversible: boolean;
  readonly timeoutMs: number;
}

const Y = true;
const N = false;

const fact = (
  declared: string,
  needs: string,
  risk: Risk,
  checked: Risk,
  idempotent: boolean,
  reversible: boolean,
  timeoutMs: number,
): Fact => ({
  declared,
  needs,
  risk,
  checked,
  idempotent,
  reversible,
  timeoutMs,
});

/** Columns: declared capabilities, enforced capabilities, declared risk, checked risk, idempotent, reversible, timeout in milliseconds. */
// prettier-ignore
export const facts = {
  "fs.read": fact("fs.read", "fs_read", "low", "low", Y, N, 5_000),
  "fs.write": fact("fs.write", "fs_write", "medium", "medium", N, Y, 10_000),
  "fs.delete": fact("fs.delete", "fs_write fs_delete", "high", "high", N, N, 10_000),
  "fs.list": fact("fs.read", "fs_read", "low", "low", Y, N, 5_000),
  "fs.stat": fact("fs.read", "fs_read", "low", "low", Y, N, 5_000),
  "fs.mkdir": fact("fs.write", "fs_write", "low", "medium", Y, Y, 5_000),
  "fs.move": fact("fs.write fs.delete", "fs_write", "medium", "medium", N, Y, 10_000),
  "fs.copy": fact("fs.read fs.write", "fs_write", "medium", "medium", N, Y, 30_000),
  "fs.chmod": fact("fs.write", "fs_write fs_permissions", "high", "high", Y, Y, 5_000),
  "fs.chown": fact("fs.admin", "fs_write fs_permissions", "critical", "high", Y, Y, 5_000),
  "fs.symlink": fact("fs.write", "fs_write", "medium", "medium", N, Y, 5_000),
  "fs.search": fact("fs.read", "fs_read", "low", "low", Y, N, 30_000),
  "fs.disk_usage": fact("fs.read", "fs_read", "low", "low", Y, N, 5_000),
  "process.list": fact("process.read", "process_read", "low", "low", Y, N, 10_000),
  "process.spawn": fact("process.execute", "process_manage", "high", "medium", N, N, 30_000),
  "process.kill": fact("process.kill", "process_manage", "critical", "high", N, N, 5_000),
  "process.info": fact("process.read", "process_read", "low", "low", Y, N, 5_000),
  "process.signal": fact("process.signal", "process_manage", "high", "medium", N, N, 5_000),
  "process.cgroup": fact("process.admin", "process_manage", "high", "high", N, Y, 10_000),
  "service.list": fact("service.read", "service_read", "low", "low", Y, N, 10_000),
  "service.start": fact("service.manage", "service_manage", "high", "medium", N, Y, 15_000),
  "service.stop": fact("service.manage", "service_manage", "high", "high", N, Y, 15_000),
  "service.restart": fact("service.manage", "service_manage", "high", "medium", N, Y, 30_000),
  "service.status": fact("service.read", "service_read", "low", "low", Y, N, 5_000),
  "net.interfaces": fact("net.read", "net_read", "low", "low", Y, N, 5_000),
  "net.ping": fact("net.read", "net_read", "low", "low", Y, N, 30_000),
  "net.dns": fact("net.read", "net_read", "low", "low", Y, N, 10_000),
  "net.http_get": fact("net.http", "net_read", "medium", "low", Y, N, 30_000),
  "net.port_scan": fact("net.read", "net_read net_scan", "medium", "medium", Y, N, 10_000),
  "firewall.rules": fact("firewall.read", "firewall_read", "low", "low", Y, N, 5_000),
  "firewall.add_rule": fact("firewall.manage", "firewall_manage", "critical", "critical", N, Y, 10_000),
  "firewall.delete_rule": fact("firewall.manage", "firewall_manage", "critical", "critical", N, N, 10_000),
  "pkg.install": fact("pkg.manage", "pkg_manage", "high", "high", N, Y, 120_000),
  "pkg.remove": fact("pkg.manage", "pkg_manage", "high", "high", N, N, 60_000),
  "pkg.search": fact("pkg.read", "pkg_read", "low", "low", Y, N, 30_000),
  "pkg.update": fact("pkg.manage", "pkg_manage", "high", "high", N, N, 300_000),
  "pkg.list_installed": fact("pkg.read", "pkg_read", "low", "low", Y, N, 15_000),
  "sec.check_perms": fact("sec.read", "sec_read", "low", "low", Y, N, 5_000),
  "sec.audit_query": fact("sec.audit", "sec_read", "low", "low", Y, N, 5_000),
  "sec.grant": fact("sec.admin", "sec_manage", "high", "critical", N, Y, 5_000),
  "sec.revoke": fact("sec.admin", "sec_manage", "high", "critical", N, Y, 5_000),
  "sec.audit": fact("sec.audit", "sec_read", "low", "low", Y, N, 5_000),
  "sec.scan": fact("sec.read", "sec_read", "medium", "medium", Y, N, 30_000),
  "sec.cert_generate": fact("sec.admin fs_write", "sec_manage", "high", "high", N, Y, 10_000),
  "sec.cert_rotate": fact("sec.admin fs_write service_manage", "sec_manage", "high", "critical", N, Y, 30_000),
  "sec.file_integrity": fact("sec.read", "sec_read", "medium", "low", Y, N, 30_000),
  "sec.scan_rootkits": fact("sec.read", "sec_read", "medium", "medium", Y, N, 30_000),
  "monitor.cpu": fact("monitor.read", "monitor_read", "low", "low", Y, N, 5_000),
  "monitor.memory": fact("monitor.read", "monitor_read", "low", "low", Y, N, 5_000),
  "monitor.disk": fact("monitor.read", "monitor_read", "low", "low", Y, N, 5_000),
  "monitor.network": fact("monitor.read", "monitor_read", "low", "low", Y, N, 5_000),
  "monitor.logs": fact("monitor.read", "monitor_read", "low", "low", Y, N, 10_000),
  "monitor.ebpf_trace": fact("monitor.read", "monitor_read", "medium", "medium", Y, N, 30_000),
  "monitor.fs_watch": fact("monitor.read", "monitor_read", "low", "low", Y, N, 10_000),
  "hw.info": fact("hw.read", "hw_read", "low", "low", Y, N, 10_000),
  "web.http_request": fact("web.http", "net_read net_write", "medium", "medium", Y, N, 30_000),
  "web.scrape": fact("web.read", "net_read", "low", "low", Y, N, 30_000),
  "web.webhook": fact("web.write", "net_write", "medium", "medium", N, N, 15_000),
  "web.download": fact("web.http fs.write", "net_read fs_write", "medium", "medium", N, Y, 120_000),
  "web.api_call": fact("web.http", "net_read net_write", "medium", "medium", Y, N, 30_000),
  "git.init": fact("git.write", "git_write", "low", "low", N, Y, 5_000),
  "git.clone": fact("git.write net.read", "git_write net_read", "medium", "medium", N, Y, 120_000),
  "git.add": fact("git.write", "git_write", "low", "low", Y, Y, 5_000),
  "git.commit": fact("git.write", "git_write", "low", "low", N, N, 10_000),
  "git.push": fact("git.write net.write", "git_write net_write", "high", "high", N, N, 60_000),
  "git.pull": fact("git.write net.read", "git_write net_read", "medium", "medium", N, N, 60_000),
  "git.branch": fact("git.write", "git_write", "low", "low", Y, Y, 5_000),
  "git.status": fact("git.read", "git_read", "low", "low", Y, N, 5_000),
  "git.log": fact("git.read", "git_read", "low", "low", Y, N, 5_000),
  "git.diff": fact("git.read", "git_read", "low", "low", Y, N, 10_000),
  "code.scaffold": fact("fs.write code.gen", "fs_write code_gen", "medium", "medium", N, Y, 15_000),
  "code.generate": fact("code.gen", "code_gen", "medium", "medium", N, Y, 30_000),
  "self.inspect": fact("self.read", "self_read", "low", "low", Y, N, 10_000),
  "self.health": fact("self.read", "self_read", "low", "low", Y, N, 15_000),
  "self.update": fact("self.update", "self_update", "critical", "critical", N, N, 120_000),
  "self.rebuild": fact("self.update", "self_update", "critical", "critical", N, N, 300_000),
  "plugin.create": fact("plugin_manage fs_write", "plugin_manage fs_write", "high", "high", N, Y, 30_000),
  "plugin.list": fact("plugin_read", "plugin_read", "low", "low", Y, N, 5_000),
  "plugin.delete": fact("plugin_manage", "plugin_manage", "high", "high", N, N, 5_000),
  "plugin.install_deps": fact("plugin_manage pkg_manage", "plugin_manage pkg_manage", "high", "high", N, N, 60_000),
  "plugin.from_template": fact("plugin_manage fs_write", "plugin_manage fs_write", "medium", "medium", N, Y, 30_000),
  "container.create": fact("container.manage", "container_manage", "medium", "high", N, Y, 30_000),
  "container.start": fact("container.manage", "container_manage", "low", "medium", Y, Y, 10_000),
  "container.stop": fact("container.manage", "container_manage", "low", "medium", Y, Y, 15_000),
  "container.list": fact("container.read", "container_read", "low", "low", Y, N, 5_000),
  "container.exec": fact("container.manage", "container_manage", "high", "high", N, N, 30_000),
  "container.logs": fact("container.read", "container_read", "low", "low", Y, N, 10_000),
  "email.send": fact("email_send", "email_send", "medium", "medium", N, N, 30_000),
} as const;

export type ToolName = keyof typeof facts;

/** The built-in names of one namespace. */
export type NamesOf<Namespace extends string> = Extract<ToolName, `${Namespace}.${string}`>;
