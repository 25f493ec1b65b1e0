"""Command `evaluate`: an engine on a user's own questions, alone or against another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llama_index_presets.cli.acceptance import Acceptance, difference_row, make_acceptance
from llama_index_presets.cli.app import (
    FAILED,
    STORAGE,
    AsJson,
    ModelName,
    Offline,
    PresetName,
    SettingsFile,
    StorageFolder,
    app,
    complain,
    emit,
    print_table,
    say,
    table,
)
from llama_index_presets.cli.engines import must_find, need_index
from llama_index_presets.cli.terminal import working
from llama_index_presets.concurrency.closing import close_behind
from llama_index_presets.counting import counted
from llama_index_presets.errors import SettingsError
from llama_index_presets.presets.matrix import preset as find_preset

if TYPE_CHECKING:
    from llama_index_presets.evaluate.compare import Difference
    from llama_index_presets.evaluate.questions import JudgedQuestion
    from llama_index_presets.evaluate.results import Result
    from llama_index_presets.experiments.evaluation import Variant
    from llama_index_presets.experiments.reranking import RerankingReport
    from llama_index_presets.presets.engine import PresetEngine

__all__ = ["evaluate"]

# Options, in the order of the command.
Questions = Annotated[
    Path,
    typer.Option("--questions", help="JSON Lines or CSV file, or a folder with queries.jsonl and qrels.tsv."),
]
Documents = Annotated[
    list[Path] | None,
    typer.Option("--documents", help="Ingest these first; what did not change costs nothing."),
]
Against = Annotated[str | None, typer.Option("--against", help="Compare with this preset.")]
With = Annotated[
    list[str] | None,
    typer.Option("--with", help="Compare with this setting, KEY=VALUE; may be repeated."),
]
AgainstStorage = Annotated[str | None, typer.Option("--against-storage", help="Where the other index lies.")]
Judge = Annotated[str | None, typer.Option("--judge", help="LLM that judges faithfulness and relevancy.")]
RetrievalOnly = Annotated[
    bool, typer.Option("--retrieval-only", help="Measure what is found; ask for no answer.")
]
Reranking = Annotated[
    bool, typer.Option("--reranking", help="Only whether re-ranking pays, and at which blend.")
]
Calibrate = Annotated[
    bool,
    typer.Option(
        "--calibrate",
        help='Only calibrate "I don\'t know" on these questions, and keep it in the storage.',
    ),
]
FalseAnswers = Annotated[
    float,
    typer.Option(
        "--false-answers", min=0, max=1, help="Share of unanswerable questions that may be answered."
    ),
]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="Only the first questions.")]
Out = Annotated[
    Path | None, typer.Option("--out", help="Folder of results; default: evaluations in the storage.")
]
Plot = Annotated[
    Path | None, typer.Option("--plot", help="Write a page with all results over these questions.")
]
FailUnder = Annotated[
    list[str] | None,
    typer.Option("--fail-under", metavar="MEASURE=VALUE", help="Exit 1 when a mean is lower. Repeatable."),
]
FailOver = Annotated[
    list[str] | None,
    typer.Option(
        "--fail-over",
        metavar="MEASURE=VALUE",
        help="Exit 1 when latency_p95_ms, cost_usd, … is higher. Repeatable.",
    ),
]
Baseline = Annotated[
    Path | None,
    typer.Option("--baseline", help="Result of another run: exit 1 on a loss that chance does not explain."),
]
OtherCorpus = Annotated[
    bool, typer.Option("--accept-other-corpus", help="Compare with a baseline over other documents.")
]
Save = Annotated[
    Path | None, typer.Option("--save", help="Write the result to this file too, for --baseline.")
]
Junit = Annotated[Path | None, typer.Option("--junit", help="Write JUnit XML to this file.")]
Markdown = Annotated[
    Path | None, typer.Option("--markdown", help="Write Markdown for a pull request to this file.")
]
KeepAnswers = Annotated[
    bool, typer.Option("--keep-answers", help="Keep the answers' text in the result, in clear.")
]
Fresh = Annotated[bool, typer.Option("--fresh", help="Do not go on with an unfinished run.")]


@app.command()
def evaluate(
    preset: PresetName,
    questions: Questions,
    storage: StorageFolder = STORAGE,
    documents: Documents = None,
    against: Against = None,
    with_: With = None,
    against_storage: AgainstStorage = None,
    judge: Judge = None,
    retrieval_only: RetrievalOnly = False,
    reranking: Reranking = False,
    calibrate: Calibrate = False,
    false_answers: FalseAnswers = 0.05,
    limit: Limit = None,
    out: Out = None,
    plot: Plot = None,
    fail_under: FailUnder = None,
    fail_over: FailOver = None,
    baseline: Baseline = None,
    other_corpus: OtherCorpus = False,
    save: Save = None,
    junit: Junit = None,
    markdown: Markdown = None,
    keep_answers: KeepAnswers = False,
    fresh: Fresh = False,
    offline: Offline = False,
    settings: SettingsFile = None,
    llm: ModelName = None,
    as_json: AsJson = False,
) -> None:
    """Measure quality, latency and cost of an engine on your questions; results are kept and can be compared.

    Exit codes: 0 measured, and every check passed; 1 a bound or the baseline was missed, or a question failed; 2 wrong
    usage, such as an unknown measure or a baseline over other documents; 130 stopped.
    """
    for name in filter(None, (preset, against)):
        find_preset(name)
    if offline and judge:
        raise SettingsError("A judge is a language model, and --offline allows none.")
    from llama_index_presets.evaluate.questions import read_questions
    from llama_index_presets.evaluate.results import read_results
    from llama_index_presets.experiments.evaluation import Variant, parse_settings
    from llama_index_presets.presets.index.storage import resolve_storage

    asked = read_questions(questions)[:limit]
    changes = parse_settings(with_ or [])
    acceptance = make_acceptance(
        fail_under=fail_under or [], fail_over=fail_over or [], baseline=baseline, other_corpus=other_corpus,
        junit=junit, markdown=markdown, save=save, alone=not (against or changes or reranking or calibrate),
    )  # fmt: skip
    first = Variant(preset=preset, storage=storage, settings=settings, changes={"llm": llm} if llm else None)
    variants = [first, first.other(against, changes, against_storage)] if against or changes else [first]
    for variant in variants:
        _check(variant, documents)  # of all, before a question of the first is paid
    folder = out or resolve_storage(storage).folder / "evaluations"
    if plot:
        read_results(folder)  # a damaged one is told before a question is paid
    if reranking:
        _show_reranking(_reranking(first, asked, offline), as_json)
        return
    if calibrate:
        _calibrate(first, asked, false_answers, documents, offline=offline, as_json=as_json)
        return
    run = _Run(
        asked, folder, documents, acceptance, offline=offline, judge=judge, fresh=fresh,
        retrieval_only=retrieval_only, keep_answers=keep_answers,
    )  # fmt: skip
    _report([run.measure(variant) for variant in variants], folder, plot, acceptance, as_json)


@dataclass(frozen=True)
class _Run:
    """What is asked of each variant, and how."""

    asked: Sequence[JudgedQuestion]
    folder: Path
    documents: Sequence[Path] | None
    acceptance: Acceptance
    _: KW_ONLY
    offline: bool
    judge: str | None
    fresh: bool
    retrieval_only: bool
    keep_answers: bool

    def measure(self, variant: Variant) -> Result:
        from llama_index_presets.evaluate.outcomes import NO_DOCUMENT
        from llama_index_presets.evaluate.results import save_result
        from llama_index_presets.experiments.evaluation import Evaluation
        from llama_index_presets.providers.language_models import make_language_model

        with _open(variant, self.documents, self.offline) as engine:
            evaluation = Evaluation(
                engine=engine, questions=self.asked, judge=make_language_model(self.judge) if self.judge else None,
                retrieval_only=self.retrieval_only, keep_answers=self.keep_answers,
            )  # fmt: skip
            self.acceptance.check_baseline(evaluation.described(), self.asked)
            result = evaluation.run(variant.label, self.folder, fresh=self.fresh)
            missing = evaluation.missing_sources(result)
        complain(f"Kept: {save_result(result, self.folder)}")
        for question, error in result.failed.items():
            complain(f"Question {question} failed: {error}")
        for source in missing:
            complain(f"Warning: {source}: {NO_DOCUMENT}")
        return result


def _check(variant: Variant, documents: Sequence[Path] | None) -> None:
    """Refuse an engine that has wrong settings, or nothing to search."""
    from llama_index_presets.presets.project.settings_sources import load_settings

    load_settings(variant.given(), variant.preset)
    if documents:
        must_find(documents)
        return
    try:
        need_index(variant.storage)
    except Exception as error:
        raise SettingsError(
            f"There is no index for '{variant.label}' in '{variant.storage}'. Ingest into it, or give "
            "--documents, so that it is made now."
        ) from error


def _open(variant: Variant, documents: Sequence[Path] | None, offline: bool) -> PresetEngine:
    from llama_index_presets.presets.build import build

    with working("Opening the index"):
        engine = build(variant.preset, storage=variant.storage, offline=offline, settings=variant.given())
    if documents:
        try:
            report = engine.ingest([str(path) for path in documents])
        except BaseException as error:
            close_behind(engine.close, error, "closing the engine")
            raise
        for failure in report.failed:
            complain(f"{failure.source}: {failure.error}")
    return engine


# -- what is shown ----------------------------------------------------------------------------------------------------


def _report(
    results: Sequence[Result], folder: Path, plot: Path | None, acceptance: Acceptance, as_json: bool
) -> None:
    from llama_index_presets.evaluate.compare import compare
    from llama_index_presets.evaluate.plot import write_quality_page
    from llama_index_presets.evaluate.results import read_results

    differences = compare(results[0].scores, results[1].scores) if len(results) == 2 else []
    if plot:
        complain(f"Written: {write_quality_page(read_results(folder, questions=results[0].questions), plot)}")
    shown: dict[str, Any] = {
        "results": [_brief(result) for result in results],
        "comparison": [difference_row(one) for one in differences],
    }
    if as_json and not acceptance:
        emit(shown)
    elif not as_json and differences:
        _show_comparison(results, differences)
    elif not as_json:
        _show_result(results[0])
    passed = acceptance.report(results[0], as_json, shown) if acceptance else True
    if not passed or any(result.failed for result in results):
        raise typer.Exit(FAILED)


def _brief(result: Result) -> dict[str, Any]:
    keys = ("label", "made", "engine", "questions", "asked", "failed", "summary")
    return {key: value for key, value in result.to_dict().items() if key in keys}


def _show_result(result: Result) -> None:
    from llama_index_presets.evaluate.measures import MEASURES

    shown = table("measure", "value", "")
    for name, value in result.summary().items():
        shown.add_row(name, "price unknown" if value is None else f"{value:.4g}", MEASURES.get(name, ""))
    print_table(shown)
    say(f"{len(result.outcomes)} of {counted(result.asked, 'question')}, {result.label}.")


def _show_comparison(results: Sequence[Result], differences: Sequence[Difference]) -> None:
    shown = table("measure", results[0].label, results[1].label, "change", "p", "questions", "")
    for one in differences:
        p_value = "-" if one.p_value is None else f"{one.p_value:.4f}"
        numbers = (f"{one.first:.4g}", f"{one.second:.4g}", f"{one.change:+.4g}", p_value, str(one.questions))
        shown.add_row(one.measure, *numbers, one.verdict())
    print_table(shown)
    say(
        f"'{results[1].label}' against '{results[0].label}'; p from a paired randomization test, 0.05 counts."
    )
    say(
        "Of a dozen measures one may cross 0.05 by chance: trust a small p, or one that comes again on other questions."
    )


# -- calibration ------------------------------------------------------------------------------------------------------


def _calibrate(
    variant: Variant,
    asked: Sequence[JudgedQuestion],
    false_answers: float,
    documents: Sequence[Path] | None,
    *,
    offline: bool,
    as_json: bool,
) -> None:
    from llama_index_presets.answer.confidence.calibration import CALIBRATION_FILE
    from llama_index_presets.experiments.calibration import calibrate, write_calibrations
    from llama_index_presets.presets.index.storage import resolve_storage

    file = resolve_storage(variant.storage).folder / CALIBRATION_FILE
    with _open(variant, documents, offline) as engine:
        reports = calibrate(engine, asked, false_answers=false_answers)
    write_calibrations(reports, file)
    if as_json:
        emit({"file": str(file), **{name: asdict(report) for name, report in reports.items()}})
        return
    shown = table("calibration", "floor", "answerable answered", "unanswerable answered")
    for name, report in reports.items():
        shares = (f"{report.answered:.3f}", f"{report.wrongly_answered:.3f}")
        shown.add_row(name, f"{report.calibration.floor:g}", *shares)
    print_table(shown)
    say(
        f"Cross-validated on {counted(len(asked), 'question')}; kept in '{file}', which holds from the next start on."
    )


# -- re-ranking -------------------------------------------------------------------------------------------------------


def _reranking(variant: Variant, asked: Sequence[JudgedQuestion], offline: bool) -> RerankingReport:
    from llama_index_presets.experiments.reranking import reranking_report

    with _open(variant, None, offline) as engine:
        return reranking_report(engine, [one for one in asked if one.relevant])


def _show_reranking(report: RerankingReport, as_json: bool) -> None:
    if as_json:
        scores = {str(blend): score for blend, score in report.ndcg_at_10.items()}
        verdict = {"best_blend": report.best_blend, "pays": report.pays}
        emit({"questions": report.questions, "ndcg_at_10": scores, **verdict})
        return
    shown = table("blend", "nDCG@10")
    for blend, score in sorted(report.ndcg_at_10.items()):
        note = {0.0: "  re-ranker alone", 1.0: "  retrieval order"}.get(blend, "")
        shown.add_row(f"{blend:g}", f"{score:.4f}{note}")
    print_table(shown)
    result = f"pays, at blend = {report.best_blend:g}" if report.pays else "does not pay"
    say(f"Re-ranking {result}, on these {counted(report.questions, 'question')}.")
