/** Certificates of an authority made for one test run: `ca`, `server` (localhost) and `client`. Needs no program but Node. */
import type { webcrypto } from "node:crypto";
import "reflect-metadata"; // @peculiar/x509 wants it there first
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { BasicConstraintsExtension, SubjectAlternativeNameExtension, X509CertificateGenerator } from "@peculiar/x509";

export interface Certificates extends AsyncDisposable {
  /** Path of `<name>.crt` or `<name>.key`. */
  file(name: "ca.crt" | "server.crt" | "server.key" | "client.crt" | "client.key"): string;
}

const algorithm = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" } as const;
const DAY_MS = 24 * 60 * 60 * 1000;

export async function makeCertificates(): Promise<Certificates> {
  const folder = await mkdtemp(join(tmpdir(), "beamline-tls-"));
  const makeKeys = (): Promise<webcrypto.CryptoKeyPair> =>
    crypto.subtle.generateKey(algorithm, true, ["sign", "verify"]);
  const valid = {
    notBefore: new Date(Date.now() - DAY_MS),
    notAfter: new Date(Date.now() + DAY_MS),
    signingAlgorithm: algorithm,
  };
  const caKeys = await makeKeys();
  const ca = await X509CertificateGenerator.createSelfSigned({
    ...valid,
    serialNumber: "01",
    name: "CN=test-ca",
    keys: caKeys,
    extensions: [new BasicConstraintsExtension(true, undefined, true)],
  });
  await writeFile(join(folder, "ca.crt"), ca.toString("pem"));
  for (const [index, name] of (["server", "client"] as const).entries()) {
    const keys = await makeKeys();
    const certificate = await X509CertificateGenerator.create({
      ...valid,
      serialNumber: `0${index + 2}`,
      subject: "CN=localhost",
      issuer: ca.subject,
      publicKey: keys.publicKey,
      signingKey: caKeys.privateKey,
      extensions: [
        new SubjectAlternativeNameExtension([
          { type: "dns", value: "localhost" },
          { type: "ip", value: "127.0.0.1" },
        ]),
      ],
    });
    const pkcs8 = Buffer.from(await crypto.subtle.exportKey("pkcs8", keys.privateKey)).toString("base64");
    await writeFile(join(folder, `${name}.crt`), certificate.toString("pem"));
    await writeFile(join(folder, `${name}.key`), `-----BEGIN PRIVATE KEY-----\n${pkcs8}\n-----END PRIVATE KEY-----\n`);
  }
  return {
    file: (name) => join(folder, name),
    [Symbol.asyncDispose]: () => rm(folder, { recursive: true }),
  };
}
