"""The leak test finds what leaks, and our traces leak nothing."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import sys
import urllib.request
from collections.abc import Callable

import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from tools.leaks import PLACES, Planted, find_leaks, main, plain_app, preset_app


def telling(what: Callable[[Planted], str]) -> Callable[[Planted], None]:
    """An application with an exporter of its own, that says something in an attribute."""

    def app(planted: Planted) -> None:
        provider = TracerProvider()
        exporter = OTLPSpanExporter(endpoint=f"{planted.endpoint}/v1/traces")
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        with provider.get_tracer("app").start_as_current_span("step") as span:
            span.set_attribute("note", what(planted))

    return app


@pytest.mark.parametrize("place", PLACES)
def test_a_name_in_clear_is_found_wherever_it_was_planted(place: str) -> None:
    """Each place has a name of its own, so the report says which text leaked."""
    report = find_leaks(telling(lambda planted: f"saw {planted.names[place]}"))
    assert [leak.planted for leak in report.leaks] == [place]
    assert not report.clean
    assert "attribute 'note' of span 'step'" in str(report.leaks[0])


@pytest.mark.parametrize(
    ("form", "disguise"),
    [
        ("base64", lambda name: base64.b64encode(f"xy {name}".encode()).decode()),
        ("percent", lambda name: name.replace(" ", "%20")),
        ("plain hash", lambda name: hashlib.sha256(name.encode()).hexdigest()[:20]),
        ("clear", lambda name: name.split()[1].upper()),
    ],
)
def test_a_disguised_name_is_found(form: str, disguise: Callable[[str], str]) -> None:
    """Encodings hide nothing, nor does a hash without a key: names can be tried."""
    report = find_leaks(telling(lambda planted: disguise(planted.names["query"])))
    assert form in {leak.form for leak in report.leaks if leak.planted == "query"}


def test_an_exception_in_another_tracer_is_found() -> None:
    """OpenTelemetry records an exception's message and traceback by itself."""

    def app(planted: Planted) -> None:
        telling(lambda _: planted.names["query"])(planted)
        raise ValueError(planted.text("exception"))

    report = find_leaks(app)
    assert report.raised == "ValueError"
    assert {leak.planted for leak in report.leaks} == {"query"}


def test_bytes_that_are_no_span_are_looked_at_too() -> None:
    """A header-less upload to the same collector is searched whole."""

    def app(planted: Planted) -> None:
        telling(lambda _: "nothing")(planted)
        body = f"\x0a\x00 {planted.names['document']}".encode()
        request = urllib.request.Request(f"{planted.endpoint}/v1/logs", data=body)
        urllib.request.urlopen(request).read()

    report = find_leaks(app)
    assert [leak.where for leak in report.leaks] == ["bytes outside the attributes of spans"]


def test_what_is_logged_is_told_apart_from_what_is_sent() -> None:
    """Logs stay on the machine: they are reported and do not fail the test."""

    def app(planted: Planted) -> None:
        telling(lambda _: "nothing")(planted)
        logging.getLogger("app").warning("asked about %s", planted.names["query"])

    report = find_leaks(app)
    assert report.clean
    assert [leak.where for leak in report.logged] == ["log 'app'"]


def test_an_application_that_sends_nothing_is_not_clean() -> None:
    """A test that looked at nothing proves nothing."""
    report = find_leaks(lambda planted: None)
    assert report.spans == 0
    assert not report.clean


@pytest.mark.parametrize("content", ["hash", "none"])
def test_our_traces_of_a_stock_application_leak_nothing(content: str) -> None:
    """Documents, queries, answers, filters, exceptions and template variables: in none of the bytes sent."""
    report = find_leaks(plain_app, content=content)  # type: ignore[arg-type]
    assert report.leaks == []
    assert report.spans > 20


def test_texts_leave_when_the_application_asks_for_it() -> None:
    """With content="text" the same test finds the names: it does look in the right places."""
    report = find_leaks(plain_app, content="text")
    assert {leak.planted for leak in report.leaks} >= {"document", "query", "answer", "template"}
    assert "exception" not in {leak.planted for leak in report.leaks}


def test_our_traces_of_a_preset_leak_nothing() -> None:
    """From files to streamed answers, with a model that fails as well."""
    report = find_leaks(preset_app("healthcare"))
    assert report.clean
    assert report.spans > 10


def leaky_app(planted: Planted) -> None:
    """An application that sends its question in clear."""
    telling(lambda names: names.text("query"))(planted)


def test_the_script_names_what_an_application_of_ones_own_sends(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`tools/leaks.py --app module:function` prints each leak, and ends with 1."""
    monkeypatch.setitem(sys.modules, "my_app", sys.modules[__name__])
    assert main(["--app", "my_app:leaky_app"]) == 1
    assert "sent: the name planted in the query was found in attribute 'note'" in capsys.readouterr().out
    assert main(["--json"]) == 0
    assert json.loads(capsys.readouterr().out)["clean"] is True
