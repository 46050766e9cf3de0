/** Mail by SMTP (aiOS tools, namespace email). The server is the operator's, named in a file. */
import { readFile } from "node:fs/promises";
import { createTransport } from "nodemailer";
import { missing, ToolFailure } from "../failure.ts";
import { bool, object, str } from "../schema.ts";
import { tool, type Namespace } from "../tool.ts";

interface SmtpFile {
  readonly host: string;
  readonly port: number;
  readonly username?: string;
  readonly password?: string;
  readonly from_address: string;
  readonly from_name?: string;
  /** Implicit TLS; default on port 465. Otherwise STARTTLS is required. */
  readonly ssl?: boolean;
}

/** One address, or several separated by commas: nothing that could begin another header. */
const address = (description: string) =>
  str(description, { minLength: 3, maxLength: 2_000, pattern: "^[^\\r\\n]+@[^\\r\\n]+$" });

export const email: Namespace<"email"> = {
  "email.send": tool<{ to: string; subject: string; body: string; from?: string; reply_to?: string; cc?: string }>({
    about: "Sends a mail as plain text.",
    input: object({
      to: address("Recipients, separated by commas."),
      subject: str("", { maxLength: 998, pattern: "^[^\\r\\n]*$" }),
      body: str(),
      "from?": address("The configured address when not given."),
      "reply_to?": address(""),
      "cc?": address("Separated by commas."),
    }),
    output: object({ success: bool(), message: str(), from: str(), to: str() }),
    changes: true,
    async run({ to, subject, body, from, reply_to, cc }, call) {
      const { smtp } = call.host.places;
      if (smtp === undefined) throw missing("a mail server", "none is configured (BEAMLINE_TOOLS_SMTP)");
      const config = await readConfig(smtp);
      const secure = config.ssl ?? config.port === 465;
      const sender = from ?? config.from_address;
      const transport = createTransport({
        host: config.host,
        port: config.port,
        secure,
        requireTLS: !secure && config.username !== undefined,
        ...(config.username !== undefined && { auth: { user: config.username, pass: config.password ?? "" } }),
        connectionTimeout: 10_000,
        greetingTimeout: 10_000,
        socketTimeout: 20_000,
        disableFileAccess: true,
        disableUrlAccess: true,
      });
      const onAbort = (): void => transport.close();
      call.signal.addEventListener("abort", onAbort, { once: true });
      try {
        const sent = await transport.sendMail({
          from: config.from_name === undefined ? sender : { name: config.from_name, address: sender },
          to,
          subject,
          text: body,
          ...(cc !== undefined && { cc }),
          ...(reply_to !== undefined && { replyTo: reply_to }),
        });
        return { success: true, message: `accepted: ${sent.response}`, from: sender, to };
      } catch (thrown) {
        throw new ToolFailure(
          `email.send: the mail server ${config.host}:${config.port} did not take the mail: ${thrown instanceof Error ? thrown.message : String(thrown)}`,
        );
      } finally {
        call.signal.removeEventListener("abort", onAbort);
        transport.close();
      }
    },
  }),
};

async function readConfig(file: string): Promise<SmtpFile> {
  let config: Partial<SmtpFile>;
  try {
    config = JSON.parse(await readFile(file, "utf8")) as Partial<SmtpFile>;
  } catch {
    throw missing("a mail server", "its configuration cannot be read (BEAMLINE_TOOLS_SMTP)");
  }
  const { host, port, from_address } = config;
  if (typeof host !== "string" || typeof port !== "number" || typeof from_address !== "string") {
    throw missing("a mail server", "its configuration lacks host, port or from_address");
  }
  return { ...config, host, port, from_address };
}
