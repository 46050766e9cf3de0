/** Scripts that plugin.from_template begins with (aiOS tools, plugin.from_template). Each sees its configuration as CONFIG. */
export interface Template {
  readonly about: string;
  readonly code: string;
}

export const templates: Readonly<Record<string, Template>> = {
  web_scraper: {
    about: "Fetches a page and gives its title and text.",
    code: `import re
import urllib.request


def main(input_data):
    url = input_data.get("url") or CONFIG["url"]
    with urllib.request.urlopen(url, timeout=10) as answer:
        page = answer.read(1048576).decode("utf-8", "replace")
    title = re.search(r"<title[^>]*>([^<]*)", page, re.I)
    text = re.sub(r"\\s+", " ", re.sub(r"<[^>]+>", " ", page)).strip()
    return {"url": url, "title": title.group(1).strip() if title else "", "text": text[:50000]}
`,
  },
  log_analyzer: {
    about: "Counts lines of a log by level and gives those that match a pattern.",
    code: `import re


def main(input_data):
    lines = input_data.get("lines") or input_data.get("text", "").splitlines()
    pattern = re.compile(input_data.get("pattern") or CONFIG.get("pattern", "error"), re.I)
    levels = {level: sum(level in line.lower() for line in lines) for level in ("debug", "info", "warn", "error")}
    return {"total": len(lines), "levels": levels, "matches": [line for line in lines if pattern.search(line)][:100]}
`,
  },
  file_processor: {
    about: "Counts lines, words and characters of a text, and maybe replaces some.",
    code: `def main(input_data):
    text = input_data.get("content", "")
    for old, new in (input_data.get("replace") or CONFIG.get("replace", {})).items():
        text = text.replace(old, new)
    return {"content": text, "lines": len(text.splitlines()), "words": len(text.split()), "characters": len(text)}
`,
  },
  api_client: {
    about: "Calls a JSON API.",
    code: `import urllib.request


def main(input_data):
    url = (input_data.get("url") or CONFIG["base_url"]) + input_data.get("path", "")
    body = input_data.get("body")
    headers = {"Content-Type": "application/json", **CONFIG.get("headers", {})}
    request = urllib.request.Request(url, data=None if body is None else json.dumps(body).encode(), headers=headers)
    with urllib.request.urlopen(request, timeout=15) as answer:
        text = answer.read(1048576).decode("utf-8", "replace")
        return {"status": answer.status, "data": json.loads(text) if text else None}
`,
  },
};
