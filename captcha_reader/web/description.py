"""The description of the route, for tools (OpenAPI) and for people (/docs)."""

from __future__ import annotations

import html
import json
from typing import Any

ERRORS = {
    413: "Too large: the request, a picture, a zip, or the number of pictures.",
    415: "Not a picture, or a content type that is not understood.",
    422: "Malformed: a broken or empty picture, bad base64 or JSON, a missing file, an unknown model.",
    408: "The request did not arrive in time.",
    503: "The queue is full; `Retry-After` says when to come again.",
}
EXAMPLE_READING = {
    "text": "7kPx2",
    "confidence": 0.9992,
    "characters": [{"char": "7", "confidence": 0.9997}, {"char": "k", "confidence": 0.9999}],
    "model": "reader.onnx",
    "ms": 9.4,
}
REQUEST_BODY = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["file"],
                "properties": {
                    "file": {
                        "type": "string",
                        "format": "binary",
                        "description": "A picture, or a zip of pictures. May stand more than once.",
                    },
                    "model": {"type": "string", "description": "A name from /models; the first by default."},
                },
            }
        },
        "application/json": {
            "schema": {
                "type": "object",
                "properties": {
                    "image": {"type": "string", "format": "byte", "description": "A picture in base64."},
                    "images": {
                        "type": "array",
                        "items": {"type": "string", "format": "byte"},
                        "description": "Several pictures in base64, in place of `image`.",
                    },
                    "model": {"type": "string", "description": "A name from /models; the first by default."},
                },
            }
        },
    },
}


DOCS_STYLE = """
:root { color-scheme: light dark; --ink: #17262b; --muted: #5b6b72; --paper: #f5f7f6; --card: #fff; --line: #dde4e4;
  --accent: #0b6e69; --code: #eef3f2; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6eeee; --muted: #9db0b3; --paper: #0e1517; --card: #162024;
  --line: #29383c; --accent: #4fd1c5; --code: #101a1d; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 system-ui, -apple-system, "Segoe UI",
  Roboto, "Liberation Sans", sans-serif; }
main { max-width: 52rem; margin: 0 auto; padding: 2rem 1rem 4rem; }
h1 { margin: 0 0 .25rem; font-size: 1.9rem; } p { margin: .5rem 0; } .muted { color: var(--muted); }
section { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 1rem 1.25rem;
  margin: 1rem 0; }
h2 { margin: 0; font-size: 1.1rem; font-family: ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
h2 b { color: var(--accent); margin-right: .5rem; } h3 { font-size: .95rem; margin: 1rem 0 .25rem; }
pre { background: var(--code); border-radius: 8px; padding: .75rem 1rem; overflow-x: auto; font-size: .86rem; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; }
td, th { text-align: left; padding: .35rem .75rem .35rem 0; border-top: 1px solid var(--line); vertical-align: top; }
a { color: var(--accent); } code { font-size: .92em; }
"""

DOCS_EXAMPLES = """curl -F file=@examples/7kPx2.png {address}/predict
curl -F file=@a.png -F file=@b.png -F model=reader.onnx {address}/predict
curl -H 'Content-Type: application/json' -d "{{\\"image\\": \\"$(base64 -w0 examples/7kPx2.png)\\"}}" {address}/predict

# Python, with gradio_client
from gradio_client import Client, handle_file
Client("{address}").predict(handle_file("examples/7kPx2.png"), None, api_name="/detect_captcha")"""


def docs_page(schema: dict[str, Any], address: str) -> str:
    """The OpenAPI description as one HTML page that asks for nothing else."""
    parts = []
    for path, methods in schema["paths"].items():
        for method, what in methods.items():
            rows = "".join(
                f"<tr><td><code>{html.escape(str(code))}</code></td><td>{html.escape(answer['description'])}</td></tr>"
                for code, answer in what["responses"].items()
            )
            parts.append(
                f"<section><h2><b>{method.upper()}</b>{html.escape(path)}</h2>"
                f"<p>{html.escape(what.get('summary', ''))}. {html.escape(what.get('description', ''))}</p>"
                f"{_docs_body(what.get('requestBody'))}<h3>Answers</h3><table>{rows}</table>{_docs_example(what)}</section>"
            )
    info = schema["info"]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
        f"<title>{html.escape(info['title'])}: for programs</title><style>{DOCS_STYLE}</style></head><body><main>"
        f"<h1>{html.escape(info['title'])}, for programs</h1><p class=muted>{html.escape(info['description'])}</p>"
        '<p><a href="openapi.json">openapi.json</a> says the same for tools; <a href="./">the page</a> is for people.'
        "</p>"
        f"<section><h2>In short</h2><pre>{html.escape(DOCS_EXAMPLES.format(address=address))}</pre></section>"
        f"{''.join(parts)}<p class=muted>What these refuse, they refuse in JSON: "
        "<code>{&quot;error&quot;: reason, &quot;status&quot;: number}</code>.</p></main></body></html>"
    )


def _docs_body(body: dict[str, Any] | None) -> str:
    if not body:
        return ""
    said = []
    for kind, content in body["content"].items():
        rows = "".join(
            f"<tr><td><code>{html.escape(name)}</code></td><td>{html.escape(what.get('description', ''))}</td></tr>"
            for name, what in content["schema"]["properties"].items()
        )
        said.append(f"<h3>{html.escape(kind)}</h3><table>{rows}</table>")
    return "".join(said)


def _docs_example(what: dict[str, Any]) -> str:
    content = what["responses"].get("200", {}).get("content", {}).get("application/json", {})
    if "example" not in content:
        return ""
    return f"<h3>Example</h3><pre>{html.escape(json.dumps(content['example'], indent=1))}</pre>"
