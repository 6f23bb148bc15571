"""The routes with their descriptions: for tools as OpenAPI, for people as FastAPI's own page at /docs."""

from __future__ import annotations

from importlib import resources
from typing import Any

import fastapi
from fastapi import Response
from fastapi.openapi.docs import get_swagger_ui_html

from captcha_reader.web.limits import MEGABYTE, Limits, Refused
from captcha_reader.web.routes import only

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
ERRORS = {
    401: "A token is needed (`Authorization: Bearer TOKEN`), where the server was started with one.",
    403: "A page of another site may not do this.",
    408: "The request did not arrive in time.",
    413: "Too large: the request, a picture, a zip, or the number of pictures.",
    415: "Not a picture, or a content type that is not understood.",
    421: "The server does not go by the name in `Host`.",
    422: "Malformed: a broken or empty picture, bad base64 or JSON, a missing file, an unknown model.",
    503: "The queue is full; `Retry-After` says when to come again.",
    504: "The model takes too long.",
}
EXAMPLE = {
    "text": "7kPx2",
    "confidence": 0.9992,
    "characters": [
        {"char": "7", "confidence": 0.9997, "box": [6.0, 4.0, 31.5, 56.0]},
        {"char": "k", "confidence": 0.9999, "box": [31.5, 4.0, 60.0, 56.0]},
    ],
    "alternatives": [{"text": "7kPx2", "confidence": 0.9992}, {"text": "7kpx2", "confidence": 0.0006}],
    "model": "reader.onnx",
    "ms": 9.4,
}
_NUMBER = {"type": "number"}
_TEXT = {"type": "string"}
ERROR = {
    "type": "object",
    "required": ["error", "status"],
    "properties": {"error": _TEXT | {"description": "The reason, one sentence."}, "status": {"type": "integer"}},
}
READING = {
    "type": "object",
    "required": ["text", "confidence", "characters", "model", "ms"],
    "properties": {
        "file": _TEXT | {"description": "The name that the picture came with; in lists alone."},
        "text": _TEXT,
        "confidence": _NUMBER | {"description": "Probability of the whole text, 0 to 1."},
        "characters": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["char", "confidence"],
                "properties": {
                    "char": _TEXT,
                    "confidence": _NUMBER,
                    "box": {
                        "type": "array",
                        "items": _NUMBER,
                        "minItems": 4,
                        "maxItems": 4,
                        "description": "Left, top, right, bottom in pixels, where the model tells where it looked.",
                    },
                },
            },
        },
        "alternatives": {
            "type": "array",
            "description": "The three most probable readings, the best first.",
            "items": {"type": "object", "properties": {"text": _TEXT, "confidence": _NUMBER}},
        },
        "model": _TEXT,
        "ms": _NUMBER | {"description": "Milliseconds from request to answer."},
    },
}
PICTURE_ERROR = ERROR | {
    "properties": {"file": _TEXT, **ERROR["properties"]},  # type: ignore[dict-item]
    "description": "Of one picture that cannot be read; the others of the request are.",
}
MODEL = {"type": "string", "description": "A name from /models; the first by default."}
DETAILS = {
    "type": "boolean",
    "default": True,
    "description": "Whether to add the characters' boxes and the alternatives, which take some milliseconds more.",
}
CONSTRAINTS = {
    "characters": _TEXT | {"description": "Those that occur, ranges allowed: `0-9`, `0-9A-F`."},
    "length": {"type": ["string", "integer"], "description": "Number of characters: `6` or `4-6`."},
    "ignore_case": {"type": "boolean", "description": "Both cases of a letter count as one; lower case is given."},
    "upper_case": {"type": "boolean", "description": "With `ignore_case`: upper case is given instead."},
}
QUERY = [
    {"name": name, "in": "query", "required": False, "schema": schema, "description": "In place of that of the body."}
    for name, schema in (("model", MODEL), ("details", DETAILS))
]
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
                    "model": MODEL,
                    "details": DETAILS,
                    **CONSTRAINTS,
                },
            }
        },
        "application/json": {
            "schema": {
                "type": "object",
                "properties": {
                    "image": {
                        "type": "string",
                        "format": "byte",
                        "description": "A picture in base64, or as a data URL.",
                    },
                    "images": {
                        "type": "array",
                        "items": {"type": "string", "format": "byte"},
                        "description": "Several pictures, in place of `image`.",
                    },
                    "model": MODEL,
                    "details": DETAILS,
                    **CONSTRAINTS,
                    "constraints": {
                        "type": "object",
                        "properties": CONSTRAINTS,
                        "additionalProperties": False,
                        "description": "The same four in an object of their own; those beside it go first.",
                    },
                },
            }
        },
    },
}


HEALTH = {
    "type": "object",
    "required": ["status", "waiting", "queue", "oldest_seconds", "batches", "models_loaded"],
    "properties": {
        "status": {"type": "string", "enum": ["ok", "stuck"]},
        "waiting": {"type": "integer", "description": "Pictures that wait to be read."},
        "queue": {"type": "integer", "description": "How many may."},
        "oldest_seconds": _NUMBER | {"description": "For how long the first of them has waited."},
        "batches": {"type": "integer", "description": "Forward passes so far."},
        "models_loaded": {"type": "integer", "description": "Models in memory."},
    },
}
MODELS = {
    "type": "object",
    "required": ["models"],
    "properties": {
        "models": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name", "format", "bytes", "default", "url"],
                "properties": {
                    "name": _TEXT,
                    "format": {"type": "string", "enum": ["onnx", "safetensors"]},
                    "bytes": {"type": "integer"},
                    "default": {"type": "boolean"},
                    "url": _TEXT | {"description": "Downloads it."},
                },
            },
        }
    },
}


def _refusals(texts: dict[int, str]) -> dict[int | str, dict[str, Any]]:
    content = {"application/json": {"schema": ERROR}}
    return {status: {"description": text, "content": content} for status, text in texts.items()}


def _said(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _answers() -> dict[int | str, dict[str, Any]]:
    many = {
        "type": "object",
        "required": ["predictions"],
        "properties": {"predictions": {"type": "array", "items": {"anyOf": [READING, PICTURE_ERROR]}}},
    }
    readings = {
        "description": "The reading. Of several pictures, of a zip, and of `images`, `predictions` with one reading "
        "for each, in order; in place of one that cannot be read, its `error` and `status`.",
        "content": {"application/json": {"schema": {"anyOf": [READING, many]}, "example": EXAMPLE}},
    }
    return {200: readings, **_refusals(ERRORS)}


def describe(app: fastapi.FastAPI, routes: Any, limits: Limits) -> None:
    """Give an app the routes, whose handlers are the methods of `routes`, and the page that describes them."""
    app.post(
        "/predict",
        summary="Read pictures",
        description=(
            "Read one captcha or several. Of several, one that cannot be read gets an error in its place. "
            f"At most {limits.pictures} pictures and {limits.request_bytes // MEGABYTE} MB a request, "
            f"{limits.unpacked_bytes // MEGABYTE} MB in unpacked zips, {limits.pixels // MEGABYTE} million pixels a "
            f"picture with all its frames and {limits.request_pixels // MEGABYTE} million a request. Pictures of "
            "requests that arrive together are read together."
        ),
        responses=_answers(),
        response_model=None,
        openapi_extra={"requestBody": REQUEST_BODY, "parameters": QUERY},
    )(routes.predict)
    everywhere = {status: ERRORS[status] for status in (401, 421)}
    app.get(
        "/health",
        summary="Whether it is up",
        response_model=None,
        responses={
            200: _said("It is.", HEALTH),
            503: _said("`status` is `stuck`: readings take far too long.", HEALTH),
            **_refusals({421: ERRORS[421]}),
        },
    )(routes.health)
    app.get(
        "/models",
        summary="The models on offer",
        response_model=None,
        responses={200: _said("The models, the default first.", MODELS), **_refusals(everywhere)},
    )(routes.list_models)
    file = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
    app.get(
        "/models/{name:path}",
        summary="Download a model",
        response_model=None,
        response_class=Response,
        responses={
            200: {"description": "The file.", "content": file},
            **_refusals(everywhere | {403: "Switched off by --read_only.", 404: "No such model."}),
        },
        openapi_extra={"parameters": [{"name": "name", "in": "path", "required": True, "schema": _TEXT}]},
    )(routes.download)
    _add_docs_page(app)
    app.head("/health", include_in_schema=False, response_model=None)(routes.health)
    app.head("/models", include_in_schema=False)(routes.list_models)
    app.head("/models/{name:path}", include_in_schema=False, response_model=None)(routes.download)
    for path in ("/predict", "/health", "/models", "/models/{name:path}", "/docs", "/openapi.json"):
        allowed = ("POST",) if path == "/predict" else ("GET", "HEAD")
        others = [method for method in METHODS if method not in allowed]
        app.api_route(path, methods=others, include_in_schema=False, response_model=None)(only(*allowed))


def _add_docs_page(app: fastapi.FastAPI) -> None:
    """FastAPI's own page, with its scripts from here and addresses that hold under any prefix."""
    kinds = {"swagger-ui-bundle.js": "text/javascript", "swagger-ui.css": "text/css", "favicon-32x32.png": "image/png"}

    @app.head("/docs", include_in_schema=False)
    @app.get("/docs", include_in_schema=False)
    def docs() -> Response:
        return get_swagger_ui_html(
            openapi_url="openapi.json",
            title=f"{app.title}: for programs",
            swagger_js_url="docs/swagger-ui-bundle.js",
            swagger_css_url="docs/swagger-ui.css",
            swagger_favicon_url="docs/favicon-32x32.png",
            swagger_ui_parameters={"validatorUrl": None},  # another host's
        )

    @app.get("/docs/{name}", include_in_schema=False)
    def asset(name: str) -> Response:
        if name not in kinds:
            raise Refused(404, "there is no such address: /docs says what there is")
        data = resources.files("fastapi_swagger.resources").joinpath(name).read_bytes()
        return Response(data, media_type=kinds[name], headers={"Cache-Control": "max-age=86400"})
