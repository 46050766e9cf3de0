/** Secrets every worker of a deployment shares: given by configuration, else made once and kept on the bus. */
import { generateKeyPairSync, randomBytes } from "node:crypto";
import type { Records } from "./records.ts";
import type { TokenSecret } from "./tokens.ts";

export interface AuditKey {
  /** PKCS#8, PEM. */
  readonly privateKey: string;
  /** SPKI, base64. */
  readonly publicKey: string;
}

export interface SharedSecrets {
  readonly tokens: readonly TokenSecret[];
  readonly audit: AuditKey;
}

/** `configured` is `id:secret,id:secret`, the first one signing. */
export async function sharedSecrets(records: Records<unknown>, configured: string | undefined): Promise<SharedSecrets> {
  const tokens =
    configured === undefined
      ? [await kept<TokenSecret>(records, "token", makeToken)]
      : configured.split(",").map(secretOf);
  return { tokens, audit: await kept<AuditKey>(records, "audit", makeAuditKey) };
}

function secretOf(text: string): TokenSecret {
  const colon = text.indexOf(":");
  return { id: text.slice(0, colon), secret: text.slice(colon + 1) };
}

async function kept<T>(records: Records<unknown>, name: string, make: () => T): Promise<T> {
  for (;;) {
    const found = await records.get(name);
    if (found !== undefined) return found.value as T;
    const made = make();
    if ((await records.swap([name], made, 0)) !== undefined) return made;
  }
}

function makeToken(): TokenSecret {
  return { id: randomBytes(4).toString("hex"), secret: randomBytes(32).toString("base64url") };
}

function makeAuditKey(): AuditKey {
  const { privateKey, publicKey } = generateKeyPairSync("ed25519");
  return {
    privateKey: String(privateKey.export({ type: "pkcs8", format: "pem" })),
    publicKey: publicKey.export({ type: "spki", format: "der" }).toString("base64"),
  };
}
