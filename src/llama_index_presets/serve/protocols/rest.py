"""REST routes: questions, passages, ingestion, documents, costs, health and metrics."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from llama_index_presets.errors import AnswerError
from llama_index_presets.ingest.metadata.document_metadata import RESERVED
from llama_index_presets.serve.answers import Answer, Answers, Bill, Question, Sources, narrowed, source_dict
from llama_index_presets.serve.bodies import (
    DocumentBody,
    FeedbackBody,
    IngestBody,
    PageBody,
    QueryBody,
    RetrieveBody,
    checked,
    conversation,
    read_body,
)
from llama_index_presets.serve.bodies import Message as MessageBody
from llama_index_presets.serve.callers.access import caller_of, must_write
from llama_index_presets.serve.callers.key_file import Caller
from llama_index_presets.serve.engines import Served
from llama_index_presets.serve.job_queue import JobQueue
from llama_index_presets.serve.jobs import Job, Text
from llama_index_presets.serve.pages import picture_of
from llama_index_presets.serve.protocols.problems import Problem, problem_of
from llama_index_presets.serve.protocols.sse import EventStream, event
from llama_index_presets.serve.turns import between_batches
from llama_index_presets.serve.uploads import document_id, file_of, may_remove, safe_name

if TYPE_CHECKING:
    from llama_index_presets.ingest.readers.pdf.picture import PagePicture
    from llama_index_presets.presets.engine import PresetEngine

__all__ = ["Rest", "relative_source", "shown"]

Handler = Callable[[Request], Awaitable[Response]]

_OWNERS: Final = frozenset({"tenant", "allowed"})
_LOOK_S: Final = 8.0  # below the ten seconds for which a probe usually waits


class Rest:
    """Handlers of the REST routes.

    Args:
        answers: Answers questions.
        jobs: Ingests.
    """

    def __init__(self, answers: Answers, jobs: JobQueue) -> None:
        self._answers = answers
        self._jobs = jobs
        self._look: asyncio.Task[int] | None = None

    def routes(self) -> list[Route]:
        """Routes for a Starlette application."""
        return [
            Route("/query", _taking(self.query), methods=["POST"]),
            Route("/query/stream", _taking(self.query_stream), methods=["POST"]),
            Route("/retrieve", _taking(self.retrieve), methods=["POST"]),
            Route("/feedback", _taking(self.feedback), methods=["POST"]),
            Route("/ingest", _taking(self.ingest), methods=["POST"]),
            Route("/ingest", _taking(self.list_jobs, "engine"), methods=["GET"]),
            Route("/ingest/{job_id}", _taking(self.job, "engine"), methods=["GET"]),
            Route("/ingest/{job_id}", _taking(self.cancel_job, "engine"), methods=["DELETE"]),
            Route("/documents", _taking(self.documents, "engine"), methods=["GET"]),
            Route(
                "/documents/{document_id:path}", _taking(self.delete_document, "engine"), methods=["DELETE"]
            ),
            Route("/document-page", _taking(self.document_page), methods=["POST"]),
            Route("/costs", _taking(self.costs, "engine", "days", "by"), methods=["GET"]),
            Route("/engines", _taking(self.engines), methods=["GET"]),
            Route("/healthz", self.healthz, methods=["GET"]),
            Route("/readyz", self.readyz, methods=["GET"]),
            Route("/metrics", self.metrics, methods=["GET"]),
        ]

    # -- questions -----------------------------------------------------------------------------------------------

    async def query(self, request: Request) -> Response:
        """Answer a question."""
        question = await _question(request)
        answer = await self._answers.ask(question)
        return JSONResponse(self._shown(answer, question.caller))

    async def query_stream(self, request: Request) -> Response:
        """Answer a question as events: ``sources``, ``text`` …, ``bill``; or ``error``."""
        question = await _question(request)
        stream = await self._answers.stream(question)
        return EventStream(self._events(stream, question.caller), on_end=stream.close)

    async def _events(self, stream: Any, caller: Caller) -> AsyncIterator[bytes]:
        try:
            async for happening in stream:
                match happening:
                    case Sources():
                        passages = [self._place(one, None, caller) for one in happening.passages]
                        yield event({"sources": passages, "source_count": len(passages)}, "sources")
                    case Bill():
                        yield event(self._shown(happening.answer, caller), "bill")
                    case _:
                        yield event({"text": happening}, "text")
        except Exception as error:
            problem = problem_of(error)
            yield event({**problem.to_dict(), "status": problem.status}, "error")

    async def retrieve(self, request: Request) -> Response:
        """Find the passages for a question."""
        body = await read_body(request, RetrieveBody)
        caller = caller_of(request)

        def work(view: PresetEngine, served: Served) -> list[dict[str, Any]]:
            from llama_index.core.schema import QueryBundle

            if not body.question.strip():
                raise Problem(400, "The question is empty. Ask something.", code="bad_question")
            with view.billed():
                hits = narrowed(view, tuple(body.filters)).retrieve(QueryBundle(body.question))
            return [self._place(source_dict(hit), served, caller) for hit in hits[: body.top_k]]

        sources = await self._answers.run(caller, body.engine, work)
        return JSONResponse({"sources": sources, "source_count": len(sources)})

    async def feedback(self, request: Request) -> Response:
        """Keep what the caller found of an answer that they were given."""
        body = await read_body(request, FeedbackBody)

        def work(view: PresetEngine, served: Served) -> None:
            try:
                view.feedback(body.query_id, up=body.rating == "up")
            except AnswerError:
                raise Problem(404, "There is no such answer of yours.", code="query_not_found") from None

        await self._answers.run(caller_of(request), body.engine, work, paid=False)
        return JSONResponse({"query_id": body.query_id, "rating": body.rating})

    def _shown(self, answer: Answer, caller: Caller) -> dict[str, Any]:
        return shown(answer, self._state(answer.engine), caller)

    def _place(self, source: Mapping[str, Any], served: Served | None, caller: Caller) -> dict[str, Any]:
        states = [served.state] if served else [one.state for one in self._answers.engines.all()]
        return relative_source(source, states, caller)

    def _state(self, name: str) -> list[Path]:
        return [one.state for one in self._answers.engines.all() if one.name == name]

    # -- the index -----------------------------------------------------------------------------------------------

    async def ingest(self, request: Request) -> Response:
        """Take files or texts, and ingest them as a job."""
        caller = caller_of(request)
        must_write(caller)
        media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        with tempfile.TemporaryDirectory(prefix="llama-presets-") as folder:
            if media == "multipart/form-data":
                engine, files, metadata = await self._receive(request, Path(folder))
                texts: list[Text] = []
            else:
                body = await read_body(request, IngestBody)
                engine, metadata, files = body.engine, body.metadata, []
                texts = [_text(one) for one in body.documents]
            _refuse_owners(metadata)
            job = await self._answers.run(
                caller, engine, lambda view, served: self._jobs.submit(served, caller, files, texts, metadata)
            )
        place = f"/ingest/{job.id}" + (f"?engine={quote(engine)}" if engine is not None else "")
        return JSONResponse(job.to_dict(), 202, headers={"Location": place})

    async def _receive(self, request: Request, folder: Path) -> tuple[str | None, list[Path], dict[str, Any]]:
        """Write the files of a form below a folder."""
        limits = self._answers.limits
        try:
            form = await request.form(max_files=limits.upload_files, max_fields=10)
        except HTTPException as error:
            raise Problem(400, f"The form cannot be read: {error.detail}", code="malformed_form") from None
        try:
            fields = {name: value for name, value in form.multi_items() if isinstance(value, str)}
            unknown = sorted(set(fields) - {"engine", "metadata"})
            uploads = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
            if unknown or not uploads:
                why = f"'{unknown[0][:80]}' is no field" if unknown else "there is no file"
                raise Problem(
                    400, f"The form takes files, engine and metadata (JSON); {why}.", code="bad_form"
                )
            files = []
            for upload in uploads:
                path = folder / safe_name(upload.filename)
                if path.exists():
                    raise Problem(400, "Two files of the form have the same name.", code="bad_form")
                await asyncio.to_thread(_write, upload, path)
                files.append(path)
        finally:
            await form.close()
        metadata = _metadata(fields.get("metadata", "{}"))
        return fields.get("engine"), files, metadata

    async def list_jobs(self, request: Request) -> Response:
        """Jobs of the caller, newest first."""
        caller = caller_of(request)
        jobs = await self._free(request, lambda view, served: self._jobs.table(served).recent(caller))
        return JSONResponse({"jobs": [job.to_dict() for job in jobs]})

    async def job(self, request: Request) -> Response:
        """One job and its progress."""
        return JSONResponse((await self._own_job(request)).to_dict())

    async def cancel_job(self, request: Request) -> Response:
        """Stop a job; what it has ingested stays."""
        must_write(caller_of(request))
        job = await self._own_job(request)

        def cancel(view: PresetEngine, served: Served) -> Job:
            self._jobs.table(served).cancel(job.id)
            return self._jobs.table(served).get(job.id)

        return JSONResponse((await self._free(request, cancel)).to_dict())

    async def _own_job(self, request: Request) -> Job:
        caller, job_id = caller_of(request), request.path_params["job_id"]
        job: Job = await self._free(request, lambda view, served: self._jobs.table(served).get(job_id))
        if not _owns(caller, job):
            raise Problem(404, "There is no such job.", code="job_not_found")
        return job

    async def documents(self, request: Request) -> Response:
        """Documents that the caller may see."""
        caller = caller_of(request)

        def listed(view: PresetEngine, served: Served) -> list[dict[str, Any]]:
            return [
                {**one.to_dict(), "id": document_id(served.state, caller, one.id)} for one in view.documents()
            ]

        documents = await self._free(request, listed)
        return JSONResponse({"documents": documents, "document_count": len(documents)})

    async def delete_document(self, request: Request) -> Response:
        """Remove a document of the caller from the index, and its upload from the disk."""
        caller = caller_of(request)
        must_write(caller)
        name = request.path_params["document_id"]

        def delete(view: PresetEngine, served: Served) -> int:
            stored = file_of(served.state, caller, name)
            if not may_remove(served.state, caller, stored):
                return 0
            removed = between_batches(served.state, lambda: view.delete([stored], wait=False))
            if removed and stored != name:
                Path(stored).unlink(missing_ok=True)
            return removed

        if not await self._free(request, delete):
            raise Problem(404, "There is no such document, or it is not yours.", code="document_not_found")
        return JSONResponse({"deleted": name})

    async def document_page(self, request: Request) -> Response:
        """Picture of a page of a PDF on which the caller sees a passage; its size in points is in the headers."""
        body = await read_body(request, PageBody)
        caller = caller_of(request)

        def draw(view: PresetEngine, served: Served) -> PagePicture:
            return picture_of(view, file_of(served.state, caller, body.document), body.page)

        picture = await self._answers.run(caller, body.engine, draw, paid=False)
        headers = {"page-width": f"{picture.width:g}", "page-height": f"{picture.height:g}"}
        return Response(picture.png, media_type="image/png", headers=headers)

    async def costs(self, request: Request) -> Response:
        """Model calls and their cost: of the caller's tenant, or of their key; of all on a server without keys."""
        from llama_index_presets.monitor.ledger.report import costs_json

        caller, query = caller_of(request), request.query_params
        scope = {"tenant": caller.tenant} if caller.tenant else {"tag": caller.tags[0]} if caller.tags else {}
        try:
            days = float(query.get("days", "7"))
        except ValueError:
            days = 0.0
        if not 0 < days <= 36_500:
            raise Problem(400, "days is no number of days above 0.", code="bad_value")
        by = query.get("by", "model")

        def work(view: PresetEngine, served: Served) -> dict[str, Any]:
            return costs_json(view.ledger, days=days, by=by, **scope)

        return JSONResponse(await self._free(request, work))

    async def _free(self, request: Request, work: Any) -> Any:
        """Do something that calls no model, with the engine that the query string names."""
        return await self._answers.run(
            caller_of(request), request.query_params.get("engine"), work, paid=False
        )

    # -- the server ----------------------------------------------------------------------------------------------

    async def engines(self, request: Request) -> Response:
        """Names and presets of the engines, and who asks."""
        caller = caller_of(request)

        def about(view: PresetEngine, served: Served) -> dict[str, Any]:
            explained = view.explain()
            return {
                "name": served.name,
                "preset": explained["preset"],
                "use_case": explained["use_case"],
                "cells": explained["cells"],
            }

        found = [
            await self._answers.run(caller, name, about, paid=False) for name in self._answers.engines.names
        ]
        who = {"name": caller.name, "read_only": caller.read_only}
        return JSONResponse({"engines": found, "caller": who})

    async def healthz(self, request: Request) -> Response:
        """The process answers."""
        return JSONResponse({"status": "ok"})

    async def readyz(self, request: Request) -> Response:
        """All engines are open and warm, and their indexes can be read."""
        engines = self._answers.engines
        if not engines.names:
            return JSONResponse({"status": "starting"}, 503)
        # All probes wait for one look: anybody may ask, and each look that hangs keeps a thread of the server.
        if self._look is None or self._look.done():
            self._look = asyncio.create_task(asyncio.to_thread(engines.count_unready))
        try:
            unready = await asyncio.wait_for(asyncio.shield(self._look), _LOOK_S)
        except TimeoutError:
            return JSONResponse({"status": "unready", "detail": "An index does not answer."}, 503)
        if unready := unready + len(engines.absent):
            total = len(engines.names) + len(engines.absent)
            detail = f"The index of {unready} of {total} engines cannot be read. The log says why."
            return JSONResponse({"status": "unready", "detail": detail}, 503)
        return JSONResponse({"status": "ready"})

    async def metrics(self, request: Request) -> Response:
        """Metrics for Prometheus."""
        content, media = await asyncio.to_thread(self._answers.metrics.render)
        return Response(content, media_type=media)


def _taking(handler: Handler, *names: str) -> Handler:
    """A handler that refuses unknown names in the query string: `?engin=hr` would reach the default engine.

    Raises:
        Problem: 400, a name is unknown or given twice.
    """

    async def checked_handler(request: Request) -> Response:
        given = [name for name, _ in request.query_params.multi_items()]
        wrong = next((name for name in given if name not in names or given.count(name) > 1), None)
        if wrong is not None:
            why = "is given twice" if wrong in names else "is unknown"
            takes = (
                f"It takes: {', '.join(names)}." if names else "It takes none; name the engine in the body."
            )
            raise Problem(400, f"'{wrong[:80]}' in the query string {why}. {takes}", code="bad_parameter")
        return await handler(request)

    return checked_handler


def shown(answer: Answer, states: list[Path], caller: Caller) -> dict[str, Any]:
    """An answer as JSON values, without the server's folders."""
    found = answer.to_dict()
    found["sources"] = [relative_source(one, states, caller) for one in found["sources"]]
    found["citations"] = [relative_source(one, states, caller) for one in found["citations"] or ()]
    for name in ("suspicious", "closest"):
        if name in found:
            found[name] = [relative_source(one, states, caller) for one in found[name]]
    return found


def relative_source(source: Mapping[str, Any], states: list[Path], caller: Caller) -> dict[str, Any]:
    """A source or citation with its document as the caller names it."""
    if "source" not in source:  # a marker that refers to no passage
        return dict(source)
    place = str(source["source"])
    for state in states:
        place = document_id(state, caller, place)
    return {**source, "source": place}


async def _question(request: Request) -> Question:
    body = await read_body(request, QueryBody)
    _, history = conversation([*body.history, _USER]) if body.history else ("", [])
    return Question(
        caller=caller_of(request),
        text=body.question,
        engine=body.engine,
        history=history,
        filters=tuple(body.filters),
    )


_USER: Final = MessageBody(role="user", content="")


def _owns(caller: Caller, job: Job) -> bool:
    return (job.caller["name"], job.caller["tenant"]) == (caller.name, caller.tenant)


def _text(one: DocumentBody) -> Text:
    _refuse_owners(one.metadata)
    return Text(id=one.id, text=one.text, metadata=one.metadata)


def _metadata(text: str) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise Problem(400, "metadata is no JSON object.", code="malformed_json")
    return checked(_MetadataBody, {"metadata": content}).metadata


class _MetadataBody(DocumentBody):
    id: str = "form"
    text: str = ""


def _refuse_owners(metadata: Mapping[str, Any]) -> None:
    """Whose a document is follows from the key alone; where a passage stands, from the document."""
    if named := sorted((_OWNERS | RESERVED) & metadata.keys()):
        why = "follows from the key" if named[0] in _OWNERS else "follows from the document"
        raise Problem(
            400, f"metadata names '{named[0]}', which {why} and cannot be given.", code="bad_metadata"
        )


def _write(upload: UploadFile, path: Path) -> None:
    with path.open("xb") as out:
        while piece := upload.file.read(1 << 20):
            out.write(piece)
