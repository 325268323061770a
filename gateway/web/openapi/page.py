"""The document as a page for people: made here, one piece of HTML with one style sheet, and no script at all."""

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

_STYLE = """
:root { color-scheme: light dark; }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 1rem; }
h2 { margin-top: 2.5rem; }
details { border-top: 1px solid #8886; padding: .5rem 0; }
summary { cursor: pointer; overflow-wrap: anywhere; }
code, pre { font: .9rem/1.5 ui-monospace, monospace; }
pre { overflow-x: auto; padding: .5rem; border: 1px solid #8886; }
table { border-collapse: collapse; }
th, td { text-align: start; vertical-align: top; padding: .15rem 1rem .15rem 0; }
th { font-weight: normal; }
"""
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
PAGE_HEADERS: Mapping[str, str] = {
    "content-security-policy": (
        f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; form-action 'none'; frame-ancestors 'none'; "
        "base-uri 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
}
"""Nothing but this style sheet is loaded, nothing is run, and nobody may frame it."""

Json = Mapping[str, Any]


def page_of(document: Json) -> str:
    """The whole page of a document as `openapi.document` makes it."""
    about = document["info"]
    sections = "".join(_section(document, tag["name"]) for tag in document["tags"])
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(about["title"])}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body><main>'
        f"<h1>{escape(about['title'])}</h1><p>{escape(about['description'])}</p>"
        '<p>The same for programs: <a href="/openapi.json">/openapi.json</a>, OpenAPI 3.1.</p>'
        f"{sections}<h2>Schemas</h2>{''.join(_schemas(document))}</main></body></html>"
    )


def _section(document: Json, tag: str) -> str:
    operations = (
        _operation(document, method, path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if tag in operation["tags"]
    )
    return f"<h2>{escape(tag.capitalize())}</h2>{''.join(operations)}"


def _operation(document: Json, method: str, path: str, operation: Json) -> str:
    body = operation.get("requestBody")
    parts = [
        f"<p>{escape(operation['description'])}</p>",
        _table("Parameters", _parameters(operation)),
        _table("Body", [("JSON", _told(body["content"]["application/json"]["schema"]))] if body else []),
        _table("Answers", _answers(document, operation)),
    ]
    title = f"<code><b>{method.upper()}</b> {escape(path)}</code> {escape(operation['summary'])}"
    return f"<details><summary>{title}</summary>{''.join(parts)}</details>"


def _parameters(operation: Json) -> Iterator[tuple[str, str]]:
    for parameter in operation.get("parameters", ()):
        about = f" {escape(parameter['description'])}" if parameter["description"] else ""
        yield f"<code>{escape(parameter['name'])}</code> ({parameter['in']})", _told(parameter["schema"]) + about


def _answers(document: Json, operation: Json) -> Iterator[tuple[str, str]]:
    refusals = document["components"]["responses"]
    for status, answer in operation["responses"].items():
        response = refusals[answer["$ref"].rpartition("/")[2]] if "$ref" in answer else answer
        bodies = ", ".join(
            f"{escape(media_type)} {_told(content['schema'])}" for media_type, content in response["content"].items()
        )
        yield escape(status), f"{escape(response['description'])}: {bodies}"


def _table(title: str, rows: Iterator[tuple[str, str]] | list[tuple[str, str]]) -> str:
    lines = "".join(f'<tr><th scope="row">{name}</th><td>{about}</td></tr>' for name, about in rows)
    return f"<h3>{title}</h3><table>{lines}</table>" if lines else ""


def _told(schema: Json) -> str:
    """A schema in a few words; one that has a name is a link to it."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f'<a href="#{name}">{name}</a>'
    if "anyOf" in schema:
        return " or ".join(map(_told, schema["anyOf"]))
    if "enum" in schema:
        return " | ".join(f"<code>{escape(json.dumps(value))}</code>" for value in schema["enum"])
    if schema.get("type") == "array":
        return f"array of {_told(schema['items'])}"
    if "properties" in schema:
        return f"object of {', '.join(f'<code>{escape(name)}</code>' for name in schema['properties'])}"
    return escape(str(schema.get("type", "anything")))


def _schemas(document: Json) -> Iterator[str]:
    for name, schema in document["components"]["schemas"].items():
        text = json.dumps(schema, indent=2, ensure_ascii=False)
        title = escape(name)
        # The id is inside, so that a browser that follows a link to it opens what it is in.
        yield f'<details><summary><code>{title}</code></summary><pre id="{title}">{escape(text)}</pre></details>'
