"""OpenAPI description of a server, and a page of it without any request to another host."""

from __future__ import annotations

import html
import json
from importlib.metadata import version
from typing import Any, Final

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from llama_index_presets.serve.bodies import (
    ChatBody,
    EmbeddingsBody,
    FeedbackBody,
    IngestBody,
    PageBody,
    QueryBody,
    ResponsesBody,
    RetrieveBody,
)

__all__ = ["description", "openapi_routes"]

_ROUTES: Final[tuple[tuple[str, str, str, type[BaseModel] | None], ...]] = (
    ("POST", "/query", "Answer a question, with sources, citations and cost.", QueryBody),
    ("POST", "/query/stream", "The same as events: sources, text …, bill; or error.", QueryBody),
    ("POST", "/retrieve", "Find the passages for a question.", RetrieveBody),
    ("POST", "/feedback", "Say what an answer of yours was worth: up or down.", FeedbackBody),
    ("POST", "/ingest", "Ingest texts (JSON) or files (multipart/form-data) as a job.", IngestBody),
    ("GET", "/ingest", "Jobs of the caller, newest first.", None),
    ("GET", "/ingest/{job_id}", "One job and its progress.", None),
    ("DELETE", "/ingest/{job_id}", "Stop a job; what it has ingested stays.", None),
    ("GET", "/documents", "Documents that the caller may see.", None),
    ("DELETE", "/documents/{document_id}", "Remove a document.", None),
    ("POST", "/document-page", "Picture of a page of a PDF, beside a citation's boxes.", PageBody),
    ("GET", "/costs", "Model calls and their cost; ?days=7&by=model|day|tag.", None),
    ("GET", "/engines", "Engines of the server, and who asks.", None),
    ("GET", "/healthz", "The process answers.", None),
    ("GET", "/readyz", "All engines are open and warm, and their indexes can be read; 503 otherwise.", None),
    ("GET", "/metrics", "Metrics for Prometheus.", None),
    ("GET", "/v1/models", "Engines as OpenAI's models.", None),
    ("POST", "/v1/chat/completions", "OpenAI's chat completions, whole or as a stream.", ChatBody),
    ("POST", "/v1/responses", "OpenAI's responses, whole or as a stream.", ResponsesBody),
    ("POST", "/v1/embeddings", "OpenAI's embeddings, by the engine's model.", EmbeddingsBody),
    ("POST", "/mcp", "Model Context Protocol, streamable HTTP.", None),
)
_STATUSES: Final = {
    "400": "Malformed or unusable.",
    "401": "No key, or an unknown or expired one.",
    "402": "The caller's budget is used up; says when it resets.",
    "403": "Not allowed for this caller.",
    "413": "The body is too large.",
    "429": "Too many requests; see Retry-After.",
    "503": "Starting, or busy; see Retry-After.",
}


def description() -> dict[str, Any]:
    """The description, as JSON values.

    Example:
        >>> description()["paths"]["/query"]["post"]["summary"]
        'Answer a question, with sources, citations and cost.'
    """
    paths: dict[str, dict[str, Any]] = {}
    schemas: dict[str, Any] = {}
    for method, path, about, body in _ROUTES:
        operation: dict[str, Any] = {
            "summary": about,
            "responses": {"200": {"description": "Done."}, **_errors(path)},
        }
        names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
        if names:
            operation["parameters"] = [
                {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names
            ]
        if body is not None:
            schema = body.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas |= schema.pop("$defs", {})
            schemas[body.__name__] = schema
            reference = {"$ref": f"#/components/schemas/{body.__name__}"}
            operation["requestBody"] = {
                "required": True,
                "content": {"application/json": {"schema": reference}},
            }
        paths.setdefault(path, {})[method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {"title": "llama-presets serve", "version": version("llama-index-presets")},
        "paths": paths,
        "components": {"schemas": schemas, "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
        "security": [{"key": []}],
    }


def _errors(path: str) -> dict[str, Any]:
    free = path in ("/healthz", "/readyz")
    return {} if free else {status: {"description": about} for status, about in _STATUSES.items()}


def openapi_routes() -> list[Route]:
    """Routes of the description and its page."""

    async def document(request: Request) -> Response:
        return JSONResponse(description())

    async def page(request: Request) -> Response:
        return HTMLResponse(_page())

    return [Route("/openapi.json", document, methods=["GET"]), Route("/docs", page, methods=["GET"])]


def _page() -> str:
    rows = "".join(
        f"<tr><td><code>{method}</code></td><td><code>{html.escape(path)}</code></td><td>{html.escape(about)}</td></tr>"
        for method, path, about, _ in _ROUTES
    )
    schemas = "".join(
        f"<h2>{html.escape(name)}</h2><pre>{html.escape(json.dumps(schema, indent=1))}</pre>"
        for name, schema in description()["components"]["schemas"].items()
    )
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        "<title>llama-presets serve</title><h1>llama-presets serve</h1>"
        "<p>The same for programs: <a href=/openapi.json>openapi.json</a></p>"
        f"<table><tr><th>Method<th>Path<th>What it does</tr>{rows}</table>{schemas}</html>"
    )
