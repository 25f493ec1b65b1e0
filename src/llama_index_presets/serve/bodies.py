"""Bodies of requests: what each route takes, as pydantic models, and how a body is read."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated, Any, Final, Literal, TypeVar

from llama_index.core.base.llms.types import ChatMessage, MessageRole
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request

from llama_index_presets.serve.protocols.problems import Problem

__all__ = [
    "AskBody",
    "ChatBody",
    "DocumentBody",
    "EmbeddingsBody",
    "FeedbackBody",
    "IngestBody",
    "Message",
    "PageBody",
    "QueryBody",
    "ResponsesBody",
    "RetrieveBody",
    "checked",
    "conversation",
    "read_body",
]

Body = TypeVar("Body", bound=BaseModel)

_LARGE: Final = 1 << 18  # bytes


class _Strict(BaseModel):
    """A field that nothing knows is refused: a typo is one, and so is an attempt to name a tenant."""

    model_config = ConfigDict(extra="forbid", strict=True)


class _Lenient(BaseModel):
    """OpenAI's clients send many fields; those that mean nothing here are left out."""

    model_config = ConfigDict(extra="ignore")


class Message(_Lenient):
    """Message of a conversation."""

    role: str
    content: str | list[dict[str, Any]] | None = None


class AskBody(_Strict):
    """A question, and how far it reaches."""

    question: str = Field(description="The question.")
    engine: str | None = Field(default=None, description="Name of the engine; the default is the first.")
    filters: list[str] = Field(
        default_factory=list, description="Conditions on metadata, such as department=hr or year>=2020."
    )


class QueryBody(AskBody):
    """Body of /query and /query/stream."""

    history: list[Message] = Field(default_factory=list, description="Earlier messages of the conversation.")


class FeedbackBody(_Strict):
    """Body of /feedback."""

    query_id: str = Field(min_length=1, max_length=64, description="Of the answer.")
    rating: Literal["up", "down"] = Field(description="Whether the answer was good.")
    engine: str | None = Field(default=None, description="Name of the engine that gave it.")


class RetrieveBody(AskBody):
    """Body of /retrieve."""

    top_k: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="Most passages; the engine's own setting is the limit."
    )


class PageBody(_Strict):
    """Body of /document-page."""

    document: str = Field(
        min_length=1, description="Id of the document, as /documents and citations have it."
    )
    page: str = Field(min_length=1, description="Label of the page, as citations have it.")
    engine: str | None = None


class DocumentBody(_Strict):
    """A document that is given as text."""

    id: str = Field(min_length=1, max_length=500)
    text: str
    metadata: dict[str, str | int | float | bool | None] = Field(default_factory=dict)


class IngestBody(_Strict):
    """Body of /ingest with texts; files are sent as multipart/form-data."""

    documents: list[DocumentBody] = Field(min_length=1, max_length=10_000)
    engine: str | None = None
    metadata: dict[str, str | int | float | bool | None] = Field(default_factory=dict)


class StreamOptions(_Lenient):
    """Options of a stream."""

    include_usage: bool = False


class ChatBody(_Lenient):
    """Body of /v1/chat/completions."""

    model: str
    messages: list[Message]
    stream: bool = False
    n: int | None = None
    stream_options: StreamOptions | None = None


class ResponsesBody(_Lenient):
    """Body of /v1/responses."""

    model: str
    input: str | list[Message]
    stream: bool = False
    previous_response_id: str | None = None
    conversation: Any = None


class EmbeddingsBody(_Lenient):
    """Body of /v1/embeddings."""

    model: str
    input: str | list[str]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None


async def read_body(request: Request, kind: type[Body]) -> Body:
    """Read and check a JSON body.

    Raises:
        Problem: 415, 400: not JSON, or not what the route takes; names every fault, and no value.
    """
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media != "application/json":
        raise Problem(415, "Send the body as application/json.", code="not_json")
    raw = await request.body()
    if len(raw) > _LARGE:  # parsing it would hold up every other request
        return await asyncio.to_thread(_parsed, kind, raw)
    return _parsed(kind, raw)


def _fault(error: Exception) -> str:
    """What is wrong with a body that is no JSON."""
    if isinstance(error, json.JSONDecodeError):
        return f"line {error.lineno}, column {error.colno}"
    if isinstance(error, RecursionError):
        return "nested too deeply"
    return "not UTF-8" if isinstance(error, UnicodeError) else "a number has too many digits"


def _parsed(kind: type[Body], raw: bytes) -> Body:
    try:
        content = json.loads(raw)
        if b"\\u" in raw:
            # half of a character, which no store or model takes
            json.dumps(content, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise Problem(400, f"The body is no JSON ({_fault(error)}).", code="malformed_json") from None
    if not isinstance(content, dict):
        raise Problem(400, "The body is no JSON object.", code="malformed_json")
    return checked(kind, content)


def checked(kind: type[Body], content: dict[str, Any]) -> Body:
    """Check a decoded body.

    Raises:
        Problem: 400, names every fault, and no value.
    """
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(str(part) for part in fault['loc'])[:80] or 'body'}: {fault['msg']}"
            for fault in error.errors(include_url=False, include_input=False)[:8]
        )
        takes = ", ".join(kind.model_fields)
        raise Problem(
            400, f"The body is not as expected: {faults}. It takes: {takes}.", code="bad_body"
        ) from None


def conversation(messages: list[Message]) -> tuple[str, list[ChatMessage]]:
    """Question and earlier messages of a conversation.

    The last message is the question. System messages are left out: what the model is told is the engine's.

    Raises:
        Problem: 400, there is no message, the last one is no user's, or one holds more than text.
    """
    if not messages:
        raise Problem(400, "messages is empty. Send at least one message of role 'user'.", code="no_messages")
    if messages[-1].role != "user":
        raise Problem(
            400, "The last message is not of role 'user', so there is no question.", code="no_question"
        )
    earlier = [
        ChatMessage(role=MessageRole(message.role), content=_text(message))
        for message in messages[:-1]
        if message.role in ("user", "assistant") and message.content
    ]
    return _text(messages[-1]), earlier


def _text(message: Message) -> str:
    if message.content is None or isinstance(message.content, str):
        return message.content or ""
    texts = []
    for part in message.content:
        text = part.get("text")
        if part.get("type") not in ("text", "input_text", "output_text") or not isinstance(text, str):
            raise Problem(400, "A message holds more than text. Send text only.", code="text_only")
        texts.append(text)
    return "\n".join(texts)
