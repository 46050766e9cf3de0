#!/usr/bin/env node
/** The command line. Each command has a file of its own. */
import { Command } from "commander";
import { BeamlineError } from "../contracts/errors.ts";
import { LocalStackError } from "../deploy/local/failure.ts";
import { ConfigError } from "../runtime/config.ts";
import { EXIT_CONFIG } from "../runtime/run.ts";
import { VERSION } from "../runtime/version.ts";
import { configCommand } from "./config.ts";
import { decideCommand } from "./decide.ts";
import { dlqCommand } from "./dlq.ts";
import { doctorCommand } from "./doctor.ts";
import { execCommand } from "./exec.ts";
import { memoryCommand, rebuildMemoryCommand } from "./memory.ts";
import { policyCommands } from "./policies.ts";
import { edgeCommand, workerCommand } from "./processes.ts";
import { runsCommand } from "./runs.ts";
import { statusCommand } from "./status.ts";
import { toolsCommand } from "./tools.ts";
import { upCommand } from "./up.ts";
import { usageCommand } from "./usage.ts";
import { workflowsCommand } from "./workflows.ts";

const program = new Command("beamline")
  .description("A backplane for AI-agent platforms.")
  .version(VERSION)
  .option("--json", "print JSON instead of text")
  .showHelpAfterError();

const commands = [
  upCommand,
  edgeCommand,
  workerCommand,
  statusCommand,
  doctorCommand,
  configCommand,
  decideCommand,
  policyCommands,
  runsCommand,
  workflowsCommand,
  toolsCommand,
  memoryCommand,
  rebuildMemoryCommand,
  execCommand,
  usageCommand,
  dlqCommand,
];
for (const add of commands) add(program);

try {
  await program.parseAsync();
} catch (thrown) {
  process.exitCode = thrown instanceof ConfigError ? EXIT_CONFIG : 1;
  if (thrown instanceof BeamlineError) process.stderr.write(`${thrown.code}: ${thrown.message}\n`);
  else if (thrown instanceof ConfigError || thrown instanceof LocalStackError)
    process.stderr.write(`${thrown.message}\n`);
  else throw thrown;
}
