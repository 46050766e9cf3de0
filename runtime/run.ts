/**
 * A process: a scope (`lifecycle.ts`) with signals and exit codes.
 *
 * R1 SIGTERM, SIGINT or SIGHUP starts the drain; the exit code is 0 when everything closed, 1 when something did not.
 * R2 a second signal exits at once with 128 + its number (130 for SIGINT, 143 for SIGTERM).
 * R3 a signal right after the first is its echo: Ctrl-C under npm reaches the process from the terminal and from npm.
 * R4 a process that cannot start closes what it had opened and exits with 1, or 78 when its configuration is wrong and trying again cannot help.
 * R5 an error nobody caught is logged, the process drains and exits with 1.
 */
import { constants } from "node:os";
import { BeamlineError } from "../contracts/errors.ts";
import { systemClock } from "./clock.ts";
import type { Clock } from "./clock.ts";
import { ConfigError } from "./config.ts";
import { OpenError, Scope, ScopeClosedError } from "./lifecycle.ts";
import { createLogger } from "./log.ts";

const SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;
const UNCAUGHT = ["uncaughtException", "unhandledRejection"] as const;
const ECHO_MS = 250;
/** EX_CONFIG of sysexits.h. */
export const EXIT_CONFIG = 78;

/** What `run` needs of a process; tests bring their own. */
export interface Host {
  on(event: string, listener: (cause: unknown) => void): unknown;
  off(event: string, listener: (cause: unknown) => void): unknown;
  exit(code: number): void;
  /** For what is said before there is a log. */
  complain(text: string): void;
  readonly clock: Clock;
}

/** The process this runs in. */
export const processHost: Host = {
  on: (event, listener) => process.on(event, listener),
  off: (event, listener) => process.off(event, listener),
  exit: (code) => process.exit(code),
  complain: (text) => process.stderr.write(`${text}\n`),
  clock: systemClock,
};

/**
 * Runs a process until it is asked to stop:
 *
 *     await run("memory", async (scope) => {
 *       const config = loadConfig({ ...processSettings, ...busSettings, ...memorySettings }, process.env);
 *       scope.configure({ drainMs: config.BEAMLINE_DRAIN_MS, log: createLogger(...) });
 *       const bus = await scope.open("bus", () => connect(config), (bus) => bus.drain());
 *       scope.use("intake", serve(handlers(bus)), (intake, deadline) => intake.stop(deadline));
 *     });
 *
 * Ready once the body returns. Ends by exiting the process; settles only where `host` does not.
 */
export async function run(
  name: string,
  body: (scope: Scope) => Promise<void>,
  host: Host = processHost,
): Promise<void> {
  const scope = new Scope({ log: createLogger({ component: name }), clock: host.clock });
  let code = 0;
  let askedMs: number | undefined;

  const onSignal = (signal: unknown) => {
    if (askedMs === undefined) {
      askedMs = host.clock.monotonic();
      scope.log.info("draining", { signal });
      void scope.close();
    } else if (host.clock.monotonic() - askedMs > ECHO_MS) host.exit(128 + numberOf(signal));
  };
  const onUncaught = (error: unknown) => {
    code = 1;
    scope.log.error("draining after an error nobody caught", { error });
    void scope.close();
  };
  for (const signal of SIGNALS) host.on(signal, onSignal);
  for (const event of UNCAUGHT) host.on(event, onUncaught);
  // Whether or not anything else does, a process that runs keeps running.
  const alive = setInterval(() => {}, 2 ** 30);

  try {
    await body(scope);
    scope.ready();
    if (!scope.draining.aborted) scope.log.info("ready");
  } catch (error) {
    // A body that was still opening when it was asked to stop ends with an error, and nothing went wrong.
    if (askedMs === undefined && !(error instanceof ScopeClosedError)) {
      const mistake = mistakeIn(error);
      code = mistake === undefined ? 1 : EXIT_CONFIG;
      // People read why a process did not start; the log keeps a redacted copy for whoever collects it.
      host.complain(mistake?.message ?? (error instanceof Error ? error.message : String(error)));
      if (mistake === undefined) scope.log.error("could not start", { error });
    }
    void scope.close();
  }
  const report = await scope.closed;
  scope.log.info("stopped", {
    took_ms: Math.round(report.tookMs),
    failed: report.failures.map((failure) => failure.name),
  });
  clearInterval(alive);
  for (const signal of SIGNALS) host.off(signal, onSignal);
  for (const event of UNCAUGHT) host.off(event, onUncaught);
  host.exit(code === 0 && !report.ok ? 1 : code);
}

/** A message's fields are in small letters: one in capitals is a setting's name. */
const settingName = /^[A-Z][A-Z0-9_]+$/;

/** The mistake in the configuration that an error comes from; undefined when it comes from anything else, which may be over the next time. */
function mistakeIn(error: unknown): Error | undefined {
  if (error instanceof ConfigError) return error;
  if (error instanceof BeamlineError && error.code === "invalid_argument" && settingName.test(error.field ?? ""))
    return error;
  return error instanceof OpenError ? mistakeIn(error.cause) : undefined;
}

function numberOf(signal: unknown): number {
  const found = SIGNALS.find((known) => known === signal);
  return found ? constants.signals[found] : 0;
}
