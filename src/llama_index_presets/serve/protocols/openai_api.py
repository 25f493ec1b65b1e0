"""OpenAI-compatible routes: models, chat completions, responses and embeddings, for clients that speak that protocol.

An engine is a model. What the model is told, how it samples and how long it answers is the engine's: ``temperature``,
``max_tokens``, ``tools`` and system messages of a request change nothing. Beside the protocol's fields a response has
``llama_presets``: ``citations``, ``known``, ``cost_usd``, ``latency_ms`` and ``query_id``.
"""

from __future__ import annotations

import base64
import re
import struct
import time
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from llama_index_presets.counting import counted
from llama_index_presets.serve.answers import Answer, Answers, AnswerStream, Bill, Question, Sources
from llama_index_presets.serve.bodies import ChatBody, EmbeddingsBody, ResponsesBody, conversation, read_body
from llama_index_presets.serve.bodies import Message as MessageBody
from llama_index_presets.serve.callers.access import caller_of
from llama_index_presets.serve.callers.key_file import Caller
from llama_index_presets.serve.engines import Served
from llama_index_presets.serve.protocols.problems import Problem, problem_of
from llama_index_presets.serve.protocols.rest import shown
from llama_index_presets.serve.protocols.sse import EventStream, event

if TYPE_CHECKING:
    from llama_index_presets.presets.engine import PresetEngine

__all__ = ["OpenAIRoutes"]

_EXTRA: Final = (
    "citations",
    "known",
    "confidence",
    "cost_usd",
    "latency_ms",
    "query_id",
    "sources",
    "unsupported",
    "unpriced_models",
    "closest",
)
_FINISH: Final = {"length": "length", "content_filter": "content_filter"}
_MOST_TEXTS: Final = 2_048  # as OpenAI's


class OpenAIRoutes:
    """Handlers of the routes below ``/v1``.

    Args:
        answers: Answers questions.
    """

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self._started = int(time.time())

    def routes(self) -> list[Route]:
        """Routes for a Starlette application."""
        return [
            Route("/v1/models", self.models, methods=["GET"]),
            Route("/v1/models/{model}", self.model, methods=["GET"]),
            Route("/v1/chat/completions", self.chat, methods=["POST"]),
            Route("/v1/responses", self.responses, methods=["POST"]),
            Route("/v1/embeddings", self.embeddings, methods=["POST"]),
        ]

    # -- models --------------------------------------------------------------------------------------------------

    async def models(self, request: Request) -> Response:
        """The engines."""
        return JSONResponse({"object": "list", "data": [self._model(n) for n in self._answers.engines.names]})

    async def model(self, request: Request) -> Response:
        """One engine."""
        name = request.path_params["model"]
        with self._answers.engines.leased(name):
            return JSONResponse(self._model(name))

    def _model(self, name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": self._started, "owned_by": "llama-index-presets"}

    # -- chat ----------------------------------------------------------------------------------------------------

    async def chat(self, request: Request) -> Response:
        """A chat completion, whole or as a stream."""
        body = await read_body(request, ChatBody)
        if body.n not in (None, 1):
            raise Problem(400, "n is not 1; an engine gives one answer.", code="unsupported_value")
        text, history = conversation(body.messages)
        question = Question(caller=caller_of(request), text=text, engine=body.model, history=history)
        head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": body.model}
        if body.stream:
            wants_usage = body.stream_options is not None and body.stream_options.include_usage
            stream, first = await self._begun(question)
            events = self._chunks(stream, first, head, wants_usage, question.caller)
            return EventStream(events, on_end=stream.close)
        answer = await self._answers.ask(question)
        extra = self._extra(answer, question.caller)
        message = {
            "role": "assistant",
            "content": answer.text,
            "refusal": None,
            "annotations": _annotations_of(answer.text, extra["citations"]),
        }
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _finish(answer)}
        usage = self._usage(answer)
        return JSONResponse(
            {**head, "object": "chat.completion", "choices": [choice], "usage": usage, "llama_presets": extra}
        )

    async def _begun(self, question: Question) -> tuple[AnswerStream, list[Any]]:
        """A stream that has given its first text: what is refused before the model speaks still has a status."""
        stream = await self._answers.stream(question)
        first: list[Any] = []
        try:
            while not first or isinstance(first[-1], Sources):
                first.append(await stream.next())
        except BaseException:
            stream.close()
            raise
        return stream, first

    async def _chunks(
        self,
        stream: AnswerStream,
        first: Sequence[Any],
        head: Mapping[str, Any],
        wants_usage: bool,
        caller: Caller,
    ) -> AsyncIterator[bytes]:
        base = {**head, "object": "chat.completion.chunk"}

        def chunk(delta: Mapping[str, Any], finish: str | None = None, **more: Any) -> bytes:
            choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
            return event({**base, "choices": [choice], **({"usage": None} if wants_usage else {}), **more})

        yield chunk({"role": "assistant", "content": ""})
        try:
            async for happening in _all(stream, first):
                if isinstance(happening, str):
                    yield chunk({"content": happening})
                elif isinstance(happening, Bill):
                    answer, extra = happening.answer, self._extra(happening.answer, caller)
                    marks = _annotations_of(answer.text, extra["citations"])
                    yield chunk({"annotations": marks}, _finish(answer), llama_presets=extra)
                    if wants_usage:
                        yield event({**base, "choices": [], "usage": self._usage(answer)})
            yield event("[DONE]")
        except Exception as error:
            yield event(problem_of(error).to_dict())

    # -- responses -----------------------------------------------------------------------------------------------

    async def responses(self, request: Request) -> Response:
        """A response of the newer protocol, whole or as a stream. Nothing is stored between requests."""
        body = await read_body(request, ResponsesBody)
        if body.previous_response_id or body.conversation:
            raise Problem(
                400, "Responses are not stored; send the conversation in input.", code="unsupported_value"
            )
        messages = (
            [MessageBody(role="user", content=body.input)] if isinstance(body.input, str) else body.input
        )
        text, history = conversation(messages)
        question = Question(caller=caller_of(request), text=text, engine=body.model, history=history)
        head = {"id": f"resp_{uuid.uuid4().hex}", "created_at": int(time.time()), "model": body.model}
        if body.stream:
            stream, first = await self._begun(question)
            return EventStream(
                self._response_events(stream, first, head, question.caller), on_end=stream.close
            )
        answer = await self._answers.ask(question)
        return JSONResponse(self._response(head, answer, question.caller))

    def _response(self, head: Mapping[str, Any], answer: Answer | None, caller: Caller) -> dict[str, Any]:
        """A whole response; one that has only begun without an answer."""
        fixed = {
            **head,
            "object": "response",
            "error": None,
            "incomplete_details": None,
            "instructions": None,
            "metadata": {},
            "parallel_tool_calls": False,
            "temperature": None,
            "tool_choice": "none",
            "tools": [],
            "top_p": None,
        }
        if answer is None:
            return {**fixed, "status": "in_progress", "output": [], "usage": None}
        extra, usage = self._extra(answer, caller), self._usage(answer)
        return {
            **fixed,
            "status": "completed",
            "output": [_output(head, answer.text, extra["citations"])],
            "usage": {
                "input_tokens": usage["prompt_tokens"],
                "output_tokens": usage["completion_tokens"],
                "total_tokens": usage["total_tokens"],
                "input_tokens_details": {"cached_tokens": 0},
                "output_tokens_details": {"reasoning_tokens": 0},
            },
            "llama_presets": extra,
        }

    async def _response_events(
        self, stream: AnswerStream, first: Sequence[Any], head: Mapping[str, Any], caller: Caller
    ) -> AsyncIterator[bytes]:
        number = -1

        def send(kind: str, **fields: Any) -> bytes:
            nonlocal number
            number += 1
            return event({"type": kind, "sequence_number": number, **fields}, kind)

        item = _message_id(head)
        place = {"item_id": item, "output_index": 0, "content_index": 0}
        empty = {"id": item, "type": "message", "status": "in_progress", "role": "assistant", "content": []}
        part = {"type": "output_text", "text": "", "annotations": []}
        yield send("response.created", response=self._response(head, None, caller))
        yield send("response.output_item.added", output_index=0, item=empty)
        yield send("response.content_part.added", part=part, **place)
        try:
            async for happening in _all(stream, first):
                if isinstance(happening, str):
                    yield send("response.output_text.delta", delta=happening, logprobs=[], **place)
                elif isinstance(happening, Bill):
                    whole = self._response(head, happening.answer, caller)
                    output = whole["output"][0]
                    yield send("response.output_text.done", text=happening.answer.text, logprobs=[], **place)
                    yield send("response.content_part.done", part=output["content"][0], **place)
                    yield send("response.output_item.done", output_index=0, item=output)
                    yield send("response.completed", response=whole)
        except Exception as error:
            problem = problem_of(error)
            yield send("error", code=problem.code, message=problem.message, param=None)

    # -- embeddings ----------------------------------------------------------------------------------------------

    async def embeddings(self, request: Request) -> Response:
        """Vectors of texts, by the engine's embedding model."""
        body = await read_body(request, EmbeddingsBody)
        texts = [body.input] if isinstance(body.input, str) else body.input
        if not texts or not all(text.strip() for text in texts):
            raise Problem(400, "input is empty, or one of its texts is.", code="empty_input")
        if len(texts) > _MOST_TEXTS:
            raise Problem(
                400, f"input has {counted(len(texts), 'text')}; at most {_MOST_TEXTS:,}.", code="too_many"
            )

        def work(view: PresetEngine, served: Served) -> list[list[float]]:
            with view.billed():
                return view.embed_model.get_text_embedding_batch(texts)

        vectors = await self._answers.run(caller_of(request), body.model, work)
        if body.dimensions not in (None, len(vectors[0])):
            raise Problem(
                400,
                f"The engine's vectors have {len(vectors[0])} dimensions, no other number.",
                code="bad_value",
            )
        encode = _base64 if body.encoding_format == "base64" else list
        data = [
            {"object": "embedding", "index": place, "embedding": encode(vector)}
            for place, vector in enumerate(vectors)
        ]
        tokens = sum(len(text) for text in texts) // 4
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return JSONResponse({"object": "list", "data": data, "model": body.model, "usage": usage})

    # -- what all answers carry ----------------------------------------------------------------------------------

    def _shown(self, answer: Answer, caller: Caller) -> dict[str, Any]:
        return shown(answer, [one.state for one in self._answers.engines.all()], caller)

    def _extra(self, answer: Answer, caller: Caller) -> dict[str, Any]:
        found = self._shown(answer, caller)
        found["citations"] = [one for one in found["citations"] or () if one.get("valid", True)]
        return {name: found[name] for name in _EXTRA if name in found}

    def _usage(self, answer: Answer) -> dict[str, int]:
        used = self._answers.metrics.usage(str(answer.metadata.get("query_id", "")))
        return {
            "prompt_tokens": used.prompt,
            "completion_tokens": used.completion,
            "total_tokens": used.prompt + used.completion,
        }


async def _all(stream: AnswerStream, first: Sequence[Any]) -> AsyncIterator[Any]:
    """Events that were read already, and then the others."""
    for happening in first:
        yield happening
    if not (first and isinstance(first[-1], Bill)):
        async for happening in stream:
            yield happening


def _annotations_of(text: str, citations: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Citations as OpenAI's annotations, one for each marker in the text.

    Example:
        >>> _annotations_of("Cats purr. [1]", [{"n": 1, "source": "cats.txt", "page": None}])[0]["url_citation"]
        {'start_index': 11, 'end_index': 14, 'title': 'cats.txt', 'url': 'cats.txt'}
    """
    by_number = {one["n"]: one for one in citations}
    return [
        {
            "type": "url_citation",
            "url_citation": {
                "start_index": mark.start(),
                "end_index": mark.end(),
                **_place(by_number[number]),
            },
        }
        for mark in re.finditer(r"\[(\d{1,4})\]", text)
        if (number := int(mark[1])) in by_number
    ]


def _place(citation: Mapping[str, Any]) -> dict[str, str]:
    source, page = str(citation.get("source", "")), citation.get("page")
    title = str(citation.get("title") or source) + (f", page {page}" if page else "")
    url = source if "://" in source else quote(source, safe="/:@") + (f"#page={page}" if page else "")
    return {"title": title, "url": url}


def _output(head: Mapping[str, Any], text: str, citations: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    marks = [{"type": "url_citation", **mark["url_citation"]} for mark in _annotations_of(text, citations)]
    part = {"type": "output_text", "text": text, "annotations": marks, "logprobs": []}
    return {
        "id": _message_id(head), "type": "message", "status": "completed", "role": "assistant", "content": [part],
    }  # fmt: skip


def _message_id(head: Mapping[str, Any]) -> str:
    return str(head["id"]).replace("resp_", "msg_")


def _finish(answer: Answer) -> str:
    return _FINISH.get(str(answer.metadata.get("finish_reason")), "stop")


def _base64(vector: Sequence[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode("ascii")
