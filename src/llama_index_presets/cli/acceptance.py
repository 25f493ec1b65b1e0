"""Acceptance of a run of `evaluate`: its options checked before the run, its verdict and reports after it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_index_presets.cli.app import complain, emit, print_table, say, table
from llama_index_presets.errors import SettingsError, StoreWriteError

if TYPE_CHECKING:
    from llama_index_presets.evaluate.acceptance import Bound, Check, Comparison
    from llama_index_presets.evaluate.questions import JudgedQuestion
    from llama_index_presets.evaluate.results import Result

__all__ = ["Acceptance", "difference_row", "make_acceptance"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Acceptance:
    """What a run is held to, and where that is reported.

    Attributes:
        bounds: Of the means.
        baseline: The saved run, or None.
        other_corpus: Whether a baseline over other documents is compared.
        junit: File for JUnit XML, or None.
        markdown: File for Markdown, or None.
        save: File for the result, or None.
    """

    bounds: Sequence[Bound] = field(default_factory=list)
    baseline: Result | None = None
    other_corpus: bool = False
    junit: Path | None = None
    markdown: Path | None = None
    save: Path | None = None

    def __bool__(self) -> bool:
        return bool(self.bounds or self.baseline or self.junit or self.markdown or self.save)

    def check_baseline(self, engine: Mapping[str, Any], asked: Sequence[JudgedQuestion]) -> None:
        """Refuse a baseline that cannot be compared, before a question is asked.

        Raises:
            SettingsError: It is over other questions or documents.
        """
        from llama_index_presets.evaluate.acceptance import check_corpus, common_questions
        from llama_index_presets.evaluate.questions import digest, digests

        if self.baseline:
            common_questions(self.baseline, digest(asked), digests(asked))
            check_corpus(self.baseline, engine, accept=self.other_corpus)

    def report(self, result: Result, as_json: bool, shown: dict[str, Any]) -> bool:
        """Judge a run, write the reports, and print the verdict; whether it passed.

        Args:
            result: The run.
            as_json: Whether to print one JSON object instead of tables.
            shown: What the object says of the run.
        """
        from llama_index_presets.evaluate.acceptance import check_bounds, compare_with
        from llama_index_presets.evaluate.reports import junit_xml, markdown
        from llama_index_presets.evaluate.results import write_result, write_whole

        if self.save:
            complain(f"Saved: {write_result(result, self.save)}")
        checks = check_bounds(self.bounds, result.summary())
        comparison = None
        if self.baseline:
            comparison = compare_with(self.baseline, result, other_corpus=self.other_corpus)
            checks += comparison.checks
        if self.junit:
            complain(f"Written: {write_whole(self.junit, junit_xml(result, checks))}")
        if self.markdown:
            complain(f"Written: {write_whole(self.markdown, markdown(result, checks, comparison))}")
        passed = all(check.passed for check in checks)
        if as_json:
            emit({**shown, "acceptance": _as_json(passed, checks, comparison)})
        else:
            _show(passed, checks, comparison)
        for warning in comparison.warnings if comparison else ():
            complain(f"Warning: {warning}")
        return passed


def make_acceptance(
    *,
    fail_under: Sequence[str],
    fail_over: Sequence[str],
    baseline: Path | None,
    other_corpus: bool,
    junit: Path | None,
    markdown: Path | None,
    save: Path | None,
    alone: bool,
) -> Acceptance:
    """Check the options that judge a run before anything is asked or paid.

    Args:
        fail_under: ``MEASURE=VALUE`` pairs, least means.
        fail_over: Likewise, most means.
        baseline: File of a saved run.
        other_corpus: Whether it may be over other documents.
        junit: File for JUnit XML.
        markdown: File for Markdown.
        save: File for the result.
        alone: Whether one engine is measured.

    Raises:
        SettingsError: An option is wrong, or two engines are measured.
        StoreWriteError: A file could not be written.
    """
    from llama_index_presets.evaluate.acceptance import parse_bounds
    from llama_index_presets.evaluate.results import read_result

    acceptance = Acceptance(
        bounds=parse_bounds(fail_under, fail_over),
        baseline=read_result(baseline) if baseline else None,
        other_corpus=other_corpus,
        junit=junit,
        markdown=markdown,
        save=save,
    )
    if acceptance and not alone:
        raise SettingsError(
            "--fail-under, --fail-over, --baseline, --junit, --markdown and --save judge one engine's answers; leave "
            "out --against, --with, --reranking and --calibrate."
        )
    named: dict[Path, str] = {}
    files = {"--baseline": baseline, "--save": save, "--junit": junit, "--markdown": markdown}
    for option, file in files.items():
        if file and (file.is_file() or not file.exists()):  # a device may be named twice
            if other := named.get(file.resolve()):
                raise SettingsError(
                    f"{other} and {option} both name '{file}', so one would be lost to the other. Name two files."
                )
            named[file.resolve()] = option
    for file in filter(None, (junit, markdown, save)):
        if file.is_dir() or (file.parent.exists() and not file.parent.is_dir()):
            raise StoreWriteError(f"'{file}' is no file that can be written. Name another one.")
    return acceptance


def difference_row(one: Any) -> dict[str, Any]:
    """A difference as JSON values."""
    return {**asdict(one), "change": one.change, "verdict": one.verdict()}


def _as_json(passed: bool, checks: Sequence[Check], comparison: Comparison | None) -> dict[str, Any]:
    compared = comparison and {
        "questions": comparison.questions,
        "warnings": list(comparison.warnings),
        "differences": [difference_row(one) for one in comparison.differences],
    }
    return {"passed": passed, "checks": [asdict(check) for check in checks], "baseline": compared}


def _show(passed: bool, checks: Sequence[Check], comparison: Comparison | None) -> None:
    if comparison:
        shown = table("measure", "baseline", "now", "change", "p", "")
        for one in comparison.differences:
            p_value = "-" if one.p_value is None else f"{one.p_value:.4f}"
            shown.add_row(
                one.measure,
                f"{one.first:.4g}",
                f"{one.second:.4g}",
                f"{one.change:+.4g}",
                p_value,
                one.verdict(),
            )
        print_table(shown)
    for check in checks:
        if not check.passed:
            complain(f"Failed: {check.message}")
    if checks:
        held = sum(check.passed for check in checks)
        say(f"{'Passed' if passed else 'Failed'}: {held} of {len(checks)} checks hold.")
