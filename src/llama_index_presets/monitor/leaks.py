"""Do traces leak? Plant made-up names wherever text comes from, run an application, look for them in what leaves.

Names are made anew for each run, of words that occur nowhere else, so a hit is a leak and not a coincidence. They
are looked for in every byte that reaches a collector on loopback, in clear, escaped, encoded and as plain
(unkeyed) hashes, and in everything that is logged meanwhile.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import logging
import os
import secrets
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Final
from urllib.parse import quote

from llama_index_presets._options import strict
from llama_index_presets.monitor.otlp_receiver import Receiver
from llama_index_presets.monitor.trace_content import Content
from llama_index_presets.monitor.traces import trace_to

__all__ = ["PLACES", "Leak", "LeakReport", "Planted", "find_leaks"]

PLACES: Final = ("document", "metadata", "query", "answer", "filter", "exception", "template")
"""Where names are planted."""

_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "PHOENIX_COLLECTOR_ENDPOINT")
_HEAD, _TAIL = "bcdfgjklmprstvz", "aeiou"


@dataclass(frozen=True, slots=True)
class Planted:
    """The names of one run, for an application to use.

    Attributes:
        names: Place -> a person's name, different for each of `PLACES`.
        endpoint: The collector that watches; an application with an exporter of its own sends there. While it runs,
            ``OTEL_EXPORTER_OTLP_ENDPOINT`` and ``PHOENIX_COLLECTOR_ENDPOINT`` name it too.
    """

    names: dict[str, str]
    endpoint: str

    def text(self, place: str) -> str:
        """Give a sentence for a place, with its name.

        Example:
            >>> Planted({"query": "Ada Lovelace"}, "").text("query")
            'What was Ada Lovelace treated for?'
        """
        name = self.names[place]
        return {
            "document": f"{name} was treated for botulism with an antitoxin on 12 May.",
            "query": f"What was {name} treated for?",
            "answer": f"{name} was treated for botulism [1].",
            "exception": f"cannot answer for {name}",
            "template": f"Patient: {name}",
        }.get(place, name)


@dataclass(frozen=True, slots=True)
class Leak:
    """A planted name that left.

    Attributes:
        planted: Where it had been planted; one of `PLACES`.
        where: Where it was found: an attribute of a span, other bytes sent, or a log line's logger.
        form: How it was written: ``"clear"``, ``"base64"``, ``"percent"`` or ``"plain hash"``.
    """

    planted: str
    where: str
    form: str

    def __str__(self) -> str:
        """One line for a person."""
        return f"the name planted in the {self.planted} was found in {self.where} ({self.form})"


@dataclass(slots=True)
class LeakReport:
    """What a leak test found.

    Attributes:
        leaks: What was sent, each once; empty is what one hopes for.
        logged: What was written to the application's logs, which stay on the machine but are copied about. LlamaIndex
            itself logs the message of some exceptions.
        spans: Spans that were looked at.
        sent_bytes: Bytes that were looked at. 0 means that nothing was tested: the application sent no traces.
        log_lines: Log records that were looked at.
        raised: Class of the exception that ended the application, or None.
    """

    leaks: list[Leak] = field(default_factory=list)
    logged: list[Leak] = field(default_factory=list)
    spans: int = 0
    sent_bytes: int = 0
    log_lines: int = 0
    raised: str | None = None

    @property
    def clean(self) -> bool:
        """Whether something was sent and no name was in it; what was logged does not count."""
        return not self.leaks and self.sent_bytes > 0

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "clean": self.clean,
            "leaks": [asdict(leak) for leak in self.leaks],
            "logged": [asdict(leak) for leak in self.logged],
            "spans": self.spans,
            "sent_bytes": self.sent_bytes,
            "log_lines": self.log_lines,
            "raised": self.raised,
        }


@strict()
def find_leaks(
    app: Callable[[Planted], object] | None = None, *, content: Content = "hash", trace: bool = True
) -> LeakReport:
    """Run an application on planted names and look for them in its traces and logs.

    Args:
        app: Called once with the planted names; uses each as what it is called: ingests the document, asks the query,
            filters by the filter, and so on. It may raise: exceptions are one of the places. None runs a small
            LlamaIndex application (`leak_app.plain_app`); `presets.leak_app.preset_app` makes one of a preset.
        content: What `trace_to` is asked for while the application runs.
        trace: Whether to trace with `trace_to`; False tests only the exporters that the application brings along.

    Returns:
        What was found, and how much was looked at.

    Raises:
        MissingExtraError: The extra ``tracing`` is not installed.

    Example:
        >>> report = find_leaks()
        >>> report.clean, report.leaks, report.spans > 10
        (True, [], True)
        >>> leaky = find_leaks(content="text")
        >>> sorted({leak.planted for leak in leaky.leaks})
        ['answer', 'document', 'filter', 'metadata', 'query', 'template']
    """
    if app is None:
        from llama_index_presets.monitor.leak_app import plain_app

        app = plain_app
    report = LeakReport()
    with Receiver() as receiver, _logged() as lines, _sent_to(receiver.endpoint):
        planted = Planted({place: _name() for place in PLACES}, receiver.endpoint)
        with contextlib.ExitStack() as tracing:
            if trace:
                tracing.enter_context(trace_to(receiver.endpoint, project="leak-test", content=content))
            try:
                app(planted)
            except Exception as error:  # the application's own affair, but for what it says on the way out
                report.raised = type(error).__name__
        _search(report, planted, receiver, lines)
    return report


def _name() -> str:
    """A name of two words that nobody has."""

    def word(syllables: int) -> str:
        return "".join(secrets.choice(_HEAD) + secrets.choice(_TAIL) for _ in range(syllables)).capitalize()

    return f"{word(5)} {word(6)}"


@contextlib.contextmanager
def _sent_to(endpoint: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in _ENDPOINTS}
    os.environ.update(dict.fromkeys(_ENDPOINTS, endpoint))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


@contextlib.contextmanager
def _logged() -> Iterator[list[tuple[str, str]]]:
    """Every log record of the process meanwhile, at the levels that are on: logger, text with its traceback."""
    lines: list[tuple[str, str]] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append((record.name, self.format(record)))

    keeper = Keep()
    logging.getLogger().addHandler(keeper)
    try:
        yield lines
    finally:
        logging.getLogger().removeHandler(keeper)


def _search(report: LeakReport, planted: Planted, receiver: Receiver, lines: list[tuple[str, str]]) -> None:
    needles = [needle for place in planted.names for needle in _needles(planted, place)]
    found: dict[Leak, None] = {}
    for span in receiver.spans():
        report.spans += 1
        for where, text in _texts(span):
            found |= {Leak(place, where, form): None for place, form, needle in needles if needle in text}
    shown = {(leak.planted, leak.form) for leak in found}
    for body in list(receiver.bodies):
        report.sent_bytes += len(body)
        low = body.decode("utf-8", "replace").lower()
        for place, form, needle in needles:
            if needle in low and (place, form) not in shown:
                found[Leak(place, "bytes outside the attributes of spans", form)] = None
    report.leaks = list(found)
    report.log_lines = len(lines)
    logged = {
        Leak(place, f"log '{logger}'", form): None
        for logger, text in lines
        for place, form, needle in needles
        if needle in text.lower()
    }
    report.logged = list(logged)


def _texts(span: Any) -> Iterator[tuple[str, str]]:
    """The name, the status and each attribute of a span and of its events, in lower case, with where that is."""
    yield f"the name of a span '{span.name[:40]}'", span.name.lower()
    yield f"the status of span '{span.name[:40]}'", span.status.message.lower()
    for attribute in span.attributes:
        yield f"attribute '{attribute.key}' of span '{span.name[:40]}'", str(attribute.value).lower()
    for event in span.events:
        for attribute in event.attributes:
            where = f"attribute '{attribute.key}' of event '{event.name[:40]}' in span '{span.name[:40]}'"
            yield where, str(attribute.value).lower()


def _needles(planted: Planted, place: str) -> Iterator[tuple[str, str, str]]:
    """(place, form, what to look for), all in lower case."""
    name, text = planted.names[place], planted.text(place)
    for word in name.split():
        yield place, "clear", word.lower()
        for skip in range(3):  # base64 reads three bytes at a time, from wherever the name begins
            yield place, "base64", base64.b64encode(b"\0" * skip + word.encode()).decode()[4:-4].lower()
    yield place, "percent", quote(name).lower()
    yield place, "clear", json.dumps(name)[1:-1].lower()
    for whole in {name, name.lower(), text}:
        for digest in (hashlib.sha256, hashlib.sha1, hashlib.md5):
            yield place, "plain hash", digest(whole.encode()).hexdigest()[:16]
