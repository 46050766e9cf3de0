/** The files gRPC is served with, looked at before they are used: the library's words name neither a file nor a setting. */
import { createPrivateKey, X509Certificate } from "node:crypto";
import { readFileSync } from "node:fs";
import { ServerCredentials } from "@grpc/grpc-js";
import { invalidArgument } from "../contracts/errors.ts";

export interface TlsFiles {
  readonly certFile: string;
  readonly keyFile: string;
  /** Clients must show a certificate of this authority: mutual TLS. */
  readonly clientCaFile?: string | undefined;
}

/**
 * What gRPC is served with; undefined, which is plain text, without files. Throws `invalid_argument` naming the setting whose file is not what it should be. An
 * authority that cannot be read would otherwise be one that nobody's certificate is of.
 */
export function credentialsOf(tls: TlsFiles | undefined): ServerCredentials | undefined {
  if (tls === undefined) return undefined;
  const { certFile, keyFile, clientCaFile } = tls;
  const chain = readFileSync(certFile);
  const privateKey = readFileSync(keyFile);
  const certificate = read("BEAMLINE_GRPC_TLS_CERT", certFile, "certificate", () => new X509Certificate(chain));
  const key = read("BEAMLINE_GRPC_TLS_KEY", keyFile, "private key without a passphrase", () =>
    createPrivateKey(privateKey),
  );
  if (!certificate.checkPrivateKey(key))
    throw invalidArgument("BEAMLINE_GRPC_TLS_KEY", `${keyFile} is not the key of the certificate in ${certFile}`);
  const ca = clientCaFile === undefined ? null : readFileSync(clientCaFile);
  if (ca !== null)
    read("BEAMLINE_GRPC_TLS_CLIENT_CA", clientCaFile ?? "", "certificate", () => new X509Certificate(ca));
  return ServerCredentials.createSsl(ca, [{ cert_chain: chain, private_key: privateKey }], ca !== null);
}

function read<T>(setting: string, file: string, what: string, parse: () => T): T {
  try {
    return parse();
  } catch {
    throw invalidArgument(setting, `${file} holds no ${what} in PEM form`);
  }
}
