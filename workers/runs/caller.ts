/** Who asks for an operation, and whether they may (OpenWOP, authentication, scopes, tenancy). */
import { BeamlineError } from "../../contracts/errors.ts";
import type { CallContext } from "../../contracts/handlers.ts";
import { header } from "../../contracts/headers.ts";
import { TEST_SCOPE } from "../../contracts/openwop/testkeys.ts";

export interface Asker {
  readonly tenant: string;
  readonly principal: string;
  readonly scopes: readonly string[];
  readonly traceparent: string;
  /** Epoch milliseconds until which the caller waits. */
  readonly deadline?: number;
  readonly tracestate?: string;
  /** Key of the caller under which a mutation happens once; undefined without. */
  readonly idempotencyKey?: string;
  /** Where the REST surface is, for URLs in answers: `http://host`; empty is relative. */
  readonly base: string;
}

/** What an operation answers, in the shape of REST. */
export interface Answer {
  readonly status: number;
  readonly body: unknown;
  readonly headers?: Readonly<Record<string, string>>;
}

export function askerOf(
  context: CallContext,
  extra: { readonly idempotencyKey?: string | undefined; readonly base?: string } = {},
): Asker {
  const key = extra.idempotencyKey ?? context.headers[header.idempotencyKey];
  const tracestate = context.headers[header.tracestate];
  return {
    tenant: context.tenant,
    principal: context.principal,
    scopes: context.scopes,
    traceparent: context.traceparent,
    deadline: context.deadline,
    ...(tracestate !== undefined && { tracestate }),
    ...(key !== undefined && key !== "" && { idempotencyKey: key }),
    base: extra.base ?? "",
  };
}

/** Refuses a caller without credentials (`unauthenticated`) or without a scope (`forbidden`, naming it). One scope never implies another. */
export function permit(asker: Asker, ...scopes: readonly string[]): void {
  if (asker.principal === "") throw new BeamlineError("unauthenticated", "a bearer token is required in authorization");
  for (const scope of scopes) {
    if (asker.scopes.includes(scope) || asker.scopes.includes("*")) continue;
    throw new BeamlineError("forbidden", `the credential lacks the scope ${scope}`, {
      details: { scopeRequired: scope },
    });
  }
}

export function isTest(asker: Asker): boolean {
  return asker.scopes.includes(TEST_SCOPE);
}
