/** What can be set about tools. */
import { bool, choice, durationMs, float, int, list, optional, text } from "../../runtime/setting.ts";

export const toolsSettings = {
  BEAMLINE_TOOLS_ROOTS: list(
    optional,
    "Directories file tools may work in, separated by commas; relative paths start in the first. Default: workspace in the data directory, and the system's temporary directory.",
  ),
  BEAMLINE_TOOLS_EGRESS_ALLOW: list(
    [],
    "Internal destinations network tools and tool handlers may reach all the same: host, host:port, 10.0.0.0/8 or [::1]:8080, separated by commas.",
  ),
  BEAMLINE_TOOLS_CONFIRM: choice(
    ["off", "critical", "high", "marked"],
    "off",
    "Which tools need an approval before they run: none, those of critical risk, those of high risk too, or those marked requires_confirmation.",
  ),
  BEAMLINE_TOOLS_APPROVAL_MS: durationMs(600_000, "How long an approval may be decided and used.", { min: 1_000 }),
  BEAMLINE_TOOLS_AGENT_RATE: float(10, "Calls per second an agent may make for long; 0 for no limit.", { min: 0 }),
  BEAMLINE_TOOLS_AGENT_BURST: float(20, "Calls an agent may make at once.", { min: 1 }),
  BEAMLINE_TOOLS_TOOL_RATE: float(50, "Calls per second one tool takes for long; 0 for no limit.", { min: 0 }),
  BEAMLINE_TOOLS_TOOL_BURST: float(100, "Calls one tool takes at once.", { min: 1 }),
  BEAMLINE_TOOLS_MAX_INPUT_BYTES: int(1_048_576, "Largest input of a tool, in bytes.", { min: 1_024, max: 3_000_000 }),
  BEAMLINE_TOOLS_MAX_OUTPUT_BYTES: int(1_572_864, "Largest output of a tool, in bytes.", {
    min: 1_024,
    max: 3_000_000,
  }),
  BEAMLINE_TOOLS_SANDBOX_MEMORY_MB: int(256, "Address space of a plugin or spawned process, in MiB.", { min: 16 }),
  BEAMLINE_TOOLS_SANDBOX_FILES: int(64, "Files a plugin or spawned process may have open.", { min: 8 }),
  BEAMLINE_TOOLS_SANDBOX_PROCESSES: int(
    16,
    "Processes the user of a plugin or spawned process may have (not enforced for root).",
    { min: 1 },
  ),
  BEAMLINE_TOOLS_SANDBOX_SECONDS: int(30, "Processor seconds of a plugin or spawned process.", { min: 1 }),
  BEAMLINE_TOOLS_PLUGINS: text(optional, "Directory of plugins; plugins in the data directory when not given."),
  BEAMLINE_TOOLS_SECRETS: text(
    optional,
    "TOML file of secrets that inputs may refer to as secret:table.key; must be readable by its owner alone.",
  ),
  BEAMLINE_TOOLS_SMTP: text(
    optional,
    "JSON file with host, port, username, password, from_address, and maybe from_name and ssl, for email.send.",
  ),
  BEAMLINE_TOOLS_MCP: text(
    optional,
    'JSON file of MCP servers to import as tools: {"mcpServers": {name: {command, args} or {url, headers}}}.',
  ),
  BEAMLINE_TOOLS_SELF_PATH: text(
    optional,
    "Source directory self.* tools look at; the working directory when not given.",
  ),
  BEAMLINE_TOOLS_SELF_UPDATE: bool(false, "Whether self.update and self.rebuild may change the source directory."),
  BEAMLINE_TOOLS_NODE: text(optional, "Name of this host in executions; the host name when not given."),
};
