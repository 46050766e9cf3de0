/** HTTP (aiOS tools, namespace web), all of it through the guarded way out. */
import { parse } from "node-html-parser";
import type { EgressResponse } from "../../../runtime/egress.ts";
import { putFile } from "../backup.ts";
import { ToolFailure } from "../failure.ts";
import { any, bool, int, num, object, path, str, texts } from "../schema.ts";
import { tool, type Call, type Json, type Namespace } from "../tool.ts";
import { failing, located, replacing, restoring } from "./atpath.ts";
import { bytesOf, fitting, MAX_BODY, MAX_WRITTEN, textOfBody } from "./net.ts";

const url = str("http or https", { minLength: 1, maxLength: 8_192 });
const method = str("", { default: "GET", pattern: "^[A-Za-z]{3,10}$" });
const seconds = (fallback: number) => num("Seconds.", { default: fallback, exclusiveMinimum: 0, maximum: 600 });
const WITH_BODY = new Set(["POST", "PUT", "PATCH"]);
const METHODS = new Set(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]);
const REDIRECTS = 5;
/** Largest file downloaded, bytes. */
const MAX_DOWNLOAD = 1024 * 1024 * 1024;
const MAX_PAGE = 4 * 1024 * 1024;

interface Asked {
  readonly url: string;
  readonly method: string;
  readonly headers?: Record<string, string>;
  readonly auth_bearer?: string;
  readonly timeout_secs: number;
}

export const web: Namespace<"web"> = {
  "web.http_request": tool<Asked & { body?: string; follow_redirects: boolean }>({
    about: "One HTTP request. A body goes with POST, PUT and PATCH only, as JSON unless a header says otherwise.",
    input: object({
      url,
      "method?": method,
      "headers?": texts(),
      "body?": str(),
      "auth_bearer?": str(),
      "timeout_secs?": seconds(15),
      "follow_redirects?": bool("", { default: true }),
    }),
    output: object({ status: int(), body: str("At most 1 MiB."), method: str(), url: str() }),
    async run(input, call) {
      const answer = await send(input, input.body, input.follow_redirects ? REDIRECTS : 0, call);
      return {
        status: answer.status,
        body: textOfBody(answer.body, answer.truncated),
        method: input.method.toUpperCase(),
        url: answer.url,
      };
    },
  }),

  "web.scrape": tool<{ url: string; selector?: string; max_length: number }>({
    about: "Text of a web page, or of what a selector (tag, .class or #id) finds in it.",
    input: object({
      url,
      "selector?": str("", { maxLength: 200, pattern: "^[A-Za-z0-9_.#-]*$" }),
      "max_length?": int("Characters.", { default: 50_000, minimum: 1, maximum: 500_000 }),
    }),
    output: object({
      url: str(),
      title: str(),
      text: str(),
      content_length: int("Characters before cutting."),
      truncated: bool(),
    }),
    async run({ url, selector = "", max_length }, call) {
      const answer = await call.host.egress.fetch(url, {
        maxRedirects: REDIRECTS,
        timeoutMs: 25_000,
        signal: call.signal,
        maxBytes: MAX_PAGE,
      });
      if (answer.status >= 400) throw new ToolFailure(`web.scrape: ${url} answered ${answer.status}`);
      const page = parse(answer.body.toString("utf8"), {
        blockTextElements: { script: false, style: false, noscript: false },
      });
      for (const noise of page.querySelectorAll("script, style, noscript, template")) noise.remove();
      const parts = selector === "" ? [page.querySelector("body") ?? page] : page.querySelectorAll(selector);
      const text = parts
        .map((part) => part.structuredText.trim())
        .join("\n")
        .trim();
      return {
        url: answer.url,
        title: page.querySelector("title")?.text.trim() ?? "",
        text: text.slice(0, max_length),
        content_length: text.length,
        truncated: text.length > max_length || answer.truncated,
      };
    },
  }),

  "web.webhook": tool<{ url: string; payload?: unknown; headers?: Record<string, string>; secret?: string }>({
    about: "Posts JSON. A secret goes along as the header X-Webhook-Secret.",
    input: object({ url, "payload?": any(), "headers?": texts(), "secret?": str() }),
    output: object({ success: bool("Status 2xx."), status: int(), response_body: str(), url: str() }),
    changes: true,
    async run({ url, payload = {}, headers = {}, secret }, call) {
      const all = {
        ...lower(headers),
        "content-type": "application/json",
        ...(secret !== undefined && { "x-webhook-secret": secret }),
      };
      const answer = await call.host.egress.fetch(url, {
        method: "POST",
        headers: all,
        body: JSON.stringify(payload),
        timeoutMs: 10_000,
        signal: call.signal,
        maxBytes: MAX_BODY,
      });
      return {
        success: isOk(answer),
        status: answer.status,
        response_body: textOfBody(answer.body, answer.truncated),
        url,
      };
    },
  }),

  "web.download": tool<{ url: string; destination: string; create_dirs: boolean; timeout_secs: number }>({
    about: "Saves what a URL answers to a file, whole or not at all.",
    input: object({
      url,
      destination: path("File."),
      "create_dirs?": bool("", { default: true }),
      "timeout_secs?": seconds(120),
    }),
    output: object({ success: bool(), url: str(), destination: str(), size_bytes: int() }),
    changes: true,
    paths: ["destination"],
    prepare: ({ destination }, call) => restoring("web.download", destination, call),
    async run({ url, destination, create_dirs, timeout_secs }, call) {
      const answer = await call.host.egress.stream(url, {
        maxRedirects: REDIRECTS,
        timeoutMs: timeout_secs * 1000,
        signal: call.signal,
        maxBytes: MAX_DOWNLOAD,
      });
      if (answer.status < 200 || answer.status >= 300) {
        for await (const chunk of answer.chunks) void chunk;
        throw new ToolFailure(`web.download: ${url} answered ${answer.status}`);
      }
      await using place = await located("web.download", destination, call, {
        follow: true,
        ...(create_dirs && { parents: [] }),
      });
      const facts = await replacing("web.download", destination, place);
      const size = await putFile(place, answer.chunks, facts).catch(
        failing("web.download", `failed to write ${destination}`),
      );
      return { success: true, url, destination: place.path, size_bytes: size };
    },
  }),

  "web.api_call": tool<Asked & { body?: unknown; query_params?: Record<string, string | number | boolean> }>({
    about: "Calls a JSON API.",
    input: object({
      url,
      "method?": method,
      "headers?": texts(),
      "body?": any("Any JSON."),
      "query_params?": { type: "object", additionalProperties: { type: ["string", "number", "boolean"] } },
      "auth_bearer?": str(),
      "timeout_secs?": seconds(30),
    }),
    output: object({
      status: int(),
      success: bool("Status 2xx."),
      data: any("The answer parsed, null when it is no JSON."),
      raw_body: str("Cut where it would be too large beside data."),
      url: str(),
    }),
    async run({ query_params = {}, ...input }, call) {
      const target = URL.parse(input.url);
      if (target === null) throw new ToolFailure("web.api_call: url is not a URL");
      for (const [key, value] of Object.entries(query_params)) target.searchParams.set(key, String(value));
      const body =
        input.body === undefined ? undefined : typeof input.body === "string" ? input.body : JSON.stringify(input.body);
      const answer = await send({ ...input, url: target.href }, body, REDIRECTS, call);
      const raw = textOfBody(answer.body, answer.truncated);
      const data = parsed(raw);
      const raw_body = data === null ? raw : fitting(raw, MAX_WRITTEN - bytesOf(data));
      return { status: answer.status, success: isOk(answer), data, raw_body, url: answer.url };
    },
  }),
};

function send(asked: Asked, body: string | undefined, maxRedirects: number, call: Call): Promise<EgressResponse> {
  const verb = asked.method.toUpperCase();
  if (!METHODS.has(verb))
    throw new ToolFailure(`${call.tool}: method ${asked.method} is not one of ${[...METHODS].join(", ")}`);
  const carried = WITH_BODY.has(verb) ? body : undefined;
  const headers = {
    ...(carried !== undefined && { "content-type": "application/json" }),
    ...lower(asked.headers ?? {}),
    ...(asked.auth_bearer !== undefined && { authorization: `Bearer ${asked.auth_bearer}` }),
  };
  return call.host.egress.fetch(asked.url, {
    method: verb,
    headers,
    ...(carried !== undefined && { body: carried }),
    maxRedirects,
    timeoutMs: asked.timeout_secs * 1000,
    signal: call.signal,
    maxBytes: MAX_BODY,
  });
}

function lower(headers: Readonly<Record<string, string>>): Record<string, string> {
  return Object.fromEntries(Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value]));
}

function isOk({ status }: { readonly status: number }): boolean {
  return status >= 200 && status < 300;
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text) as Json;
  } catch {
    return null;
  }
}
