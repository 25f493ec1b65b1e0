"""Reports of an evaluation for a build server: JUnit XML, and Markdown for a pull request."""

from __future__ import annotations

import re
from collections.abc import Sequence
from xml.etree import ElementTree  # nosec B405  # writes only

from llama_index_presets.counting import counted
from llama_index_presets.evaluate.acceptance import Check, Comparison
from llama_index_presets.evaluate.measures import MEASURES
from llama_index_presets.evaluate.results import Result

__all__ = ["junit_xml", "markdown"]

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit_xml(result: Result, checks: Sequence[Check]) -> str:
    """One test case a check and one a question, as JUnit XML.

    A check that does not hold is a failure, a question that failed is an error; a question's time is its latency.

    Args:
        result: The run.
        checks: Of bounds and baseline.
    """
    outcomes = {outcome.question: outcome for outcome in result.outcomes}
    names = list(dict.fromkeys([*outcomes, *result.failed]))
    failures = sum(not check.passed for check in checks)
    seconds = sum(outcome.latency_ms for outcome in result.outcomes) / 1000
    counts = {
        "name": _xml(f"llama-presets evaluate {result.label}"),
        "tests": str(len(checks) + len(names)),
        "failures": str(failures),
        "errors": str(len(result.failed)),
        "skipped": "0",
        "time": f"{seconds:.3f}",
    }
    root = ElementTree.Element(
        "testsuites", {key: value for key, value in counts.items() if key != "skipped"}
    )
    suite = ElementTree.SubElement(root, "testsuite", {**counts, "timestamp": result.made.removesuffix("Z")})
    for check in checks:
        case = _case(suite, "evaluate.acceptance", check.name, 0.0)
        if not check.passed:
            _fault(case, "failure", check.message)
    for name in names:
        took = outcomes[name].latency_ms / 1000 if name in outcomes else 0.0
        case = _case(suite, "evaluate.questions", name, took)
        if name in result.failed:
            _fault(case, "error", result.failed[name])
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _case(suite: ElementTree.Element, kind: str, name: str, seconds: float) -> ElementTree.Element:
    about = {"classname": kind, "name": _xml(name), "time": f"{seconds:.3f}"}
    return ElementTree.SubElement(suite, "testcase", about)


def _fault(case: ElementTree.Element, kind: str, message: str) -> None:
    ElementTree.SubElement(case, kind, {"message": _xml(message), "type": kind}).text = _xml(message)


def _xml(text: str) -> str:
    """Text without characters that XML cannot hold."""
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)


# -- Markdown ---------------------------------------------------------------------------------------------------------


def markdown(result: Result, checks: Sequence[Check], comparison: Comparison | None = None) -> str:
    """The run as Markdown: verdict, checks that failed, and a table of measures beside the baseline.

    Args:
        result: The run.
        checks: Of bounds and baseline.
        comparison: With the baseline, where there is one.
    """
    broken = [check.message for check in checks if not check.passed]
    broken += [f"Question {name} failed: {error}" for name, error in result.failed.items()]
    verdict = "failed" if broken else "passed" if checks else "measured"
    lines = [f"### Retrieval quality: {verdict}", ""]
    lines += [f"- {_markdown(line)}" for line in broken] + ([""] if broken else [])
    lines += [*_table(result, comparison), ""]
    passed = sum(check.passed for check in checks)
    held = f"{passed} of {len(checks)} checks hold. " if checks else ""
    lines.append(
        f"{held}{len(result.outcomes)} of {counted(result.asked, 'question')}, {_markdown(result.label)}."
    )
    notes = list(comparison.warnings) if comparison else []
    lines += ["", *(f"- {_markdown(note)}" for note in notes)] if notes else []
    return "\n".join(lines) + "\n"


def _table(result: Result, comparison: Comparison | None) -> list[str]:
    if comparison is None:
        rows = [
            (name, "price unknown" if value is None else f"{value:.4g}", MEASURES.get(name, ""))
            for name, value in result.summary().items()
        ]
        return _rows(("measure", "value", ""), rows)
    rows_of_both = [
        (
            one.measure,
            f"{one.first:.4g}",
            f"{one.second:.4g}",
            f"{one.change:+.4g}",
            "-" if one.p_value is None else f"{one.p_value:.4f}",
            one.verdict(),
        )
        for one in comparison.differences
    ]
    return _rows(("measure", "baseline", "now", "change", "p", ""), rows_of_both)


def _rows(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    rule = ["---", *("---:" for _ in header[1:-1]), "---"]
    return [f"| {' | '.join(map(_markdown, row))} |" for row in (header, rule, *rows)]


def _markdown(text: str) -> str:
    """Text in one line that opens no cell, tag, link or mention."""
    line = " ".join(_xml(text).split())
    return re.sub(r"([|<>\[\]`*\\])", r"\\\1", line).replace("@", "@\u200b")
