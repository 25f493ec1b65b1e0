"""Commands `questions draft` and `questions label`: questions for `evaluate` and `tune`, from documents."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llama_index_presets.cli.app import (
    STORAGE,
    AsJson,
    ModelName,
    SettingsFile,
    StorageFolder,
    app,
    complain,
    dollars,
    emit,
    say,
)
from llama_index_presets.cli.engines import must_find
from llama_index_presets.cli.project import ProjectCommand
from llama_index_presets.cli.spending import agree_to_cost
from llama_index_presets.cli.terminal import can_ask, printable, working
from llama_index_presets.counting import counted
from llama_index_presets.errors import AnswerError, SettingsError
from llama_index_presets.presets.project.file import find_project

if TYPE_CHECKING:
    from llama_index_presets.evaluate.labels import Labels
    from llama_index_presets.evaluate.questions import JudgedQuestion
    from llama_index_presets.experiments.question_drafts import Passage
    from llama_index_presets.presets.settings import Settings

__all__ = ["draft", "label", "questions_app"]

questions_app = typer.Typer(help="Questions for 'evaluate' and 'tune'.", no_args_is_help=True)
app.add_typer(questions_app, name="questions")

_HELP = "a accept, r reject, e edit, n no document answers it, s skip for now, q stop"


@questions_app.command(cls=ProjectCommand)
def draft(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="[PATHS]",
            help="Files, folders, and URLs of files; else the sources of llama-presets.toml.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="JSON Lines file of drafts; added to.")] = Path(
        "drafts.jsonl"
    ),
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="How many at most.")] = 50,
    llm: ModelName = None,
    max_cost: Annotated[
        float | None,
        typer.Option(
            "--max-cost", min=0, help="With --llm: refuse above so many US dollars; below, ask nothing."
        ),
    ] = None,
    storage: StorageFolder = STORAGE,
    settings: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """Draft questions from documents: by rules, without a model, or by --llm after an estimate.

    The calls of --llm are kept in the ledger of the storage, under the tag question-drafts: 'costs' shows them.
    """
    from llama_index_presets.evaluate.labels import append_question, check_appendable

    must_find(paths)
    check_appendable(out)
    with working("Reading"):
        from llama_index_presets.evaluate.questions import read_questions
        from llama_index_presets.experiments import question_drafts as drafts
        from llama_index_presets.ingest.previews.preview import preview

        read = preview(paths)
        found = drafts.passages(read)
    for one in read:
        if one.error is not None:
            complain(f"{one.source}: {one.error}")
    known = {one.id for one in read_questions(out)} if out.exists() and out.stat().st_size else set()
    if llm:
        values = _settings(settings)
        worth = {drafts.passage_id(one): one for one in drafts.worth_asking(found, count)}  # a text, once
        wanted = [one for name, one in worth.items() if name not in known]
        made, cost = _by_model(
            llm, wanted, values, max_cost, as_json, storage, lambda one: append_question(out, one)
        )
    else:
        new = [one for one in drafts.draft(found, count) if one.id not in known]
        for question in new:
            append_question(out, question)
        made, cost = len(new), Decimal(0)
    if as_json:
        emit(
            {
                "file": str(out),
                "drafted": made,
                "known": len(known),
                "cost_usd": None if cost is None else float(cost),
            }
        )
        return
    say(f"{counted(made, 'question')} drafted into '{out}'{f', {len(known)} were there' if known else ''}.")
    if llm:
        say(f"Cost: {dollars(None if cost is None else float(cost))}.")
    say(f"Drafts are proposals. Label them: llama-presets questions label {out} --out questions.jsonl")


def _settings(file: Path | None) -> Settings:
    """Settings that hold for drafts: prices, and how the language model is asked."""
    from llama_index_presets.presets.project.settings_sources import load_settings

    project = find_project()
    return load_settings(file, project.preset if project is not None else None)[0]


def _by_model(
    name: str, found: Sequence[Passage], values: Settings, max_cost: float | None, as_json: bool, storage: str,
    keep: Callable[[JudgedQuestion], None],
) -> tuple[int, Decimal | None]:  # fmt: skip
    """Questions that were drafted, and what they cost; None when a price is unknown."""
    from llama_index_presets.experiments.question_drafts import DRAFT_TAG, estimate_drafts, model_draft
    from llama_index_presets.files.private_files import private_folder
    from llama_index_presets.monitor.attribution import attributed
    from llama_index_presets.monitor.handler import CostTrackingHandler
    from llama_index_presets.monitor.ledger.ledger import Ledger
    from llama_index_presets.monitor.prices import Pricer
    from llama_index_presets.presets.index.storage import resolve_storage
    from llama_index_presets.providers.language_models import make_language_model
    from llama_index_presets.providers.options import of_any_model

    expected = estimate_drafts(name, found, Pricer(values.prices))
    agree_to_cost(
        counted(len(found), "draft"), expected, "the model has no known price", max_cost=max_cost,
        as_json=as_json, cheaper="Draft fewer with --count, or give a higher --max-cost.",
    )  # fmt: skip
    if not found:
        return 0, Decimal(0)
    options = values.llm_options or {}
    model = make_language_model(name, options if values.llm == name else of_any_model(options))
    made, run = 0, uuid.uuid4().hex
    place = resolve_storage(storage)
    private_folder(place.folder)
    with Ledger(place.ledger, prices=values.prices) as ledger:
        with (
            CostTrackingHandler(ledger, scope="bound", recount=False).instrument(),
            attributed(ledger=ledger, query_id=run, tags=[DRAFT_TAG]),
        ):
            for passage in found:
                try:
                    keep(model_draft(model, passage))
                    made += 1
                except AnswerError as error:
                    complain(str(error))
        return made, ledger.query_cost(run)


@questions_app.command()
def label(
    drafts: Annotated[Path, typer.Argument(help="File of 'questions draft', or any file of questions.")],
    out: Annotated[
        Path, typer.Option("--out", help="JSON Lines file of accepted questions; added to.")
    ] = Path("questions.jsonl"),
) -> None:
    """Label drafts at the terminal: accept, reject, edit. Each decision is kept at once; Ctrl-C and go on later."""
    if not can_ask():
        raise SettingsError(
            "Labels are given at a terminal, and standard input is not one. Run it in a terminal, or edit the file: "
            "each line is a question, its sources and its answer."
        )
    from llama_index_presets.evaluate.labels import Labels
    from llama_index_presets.evaluate.questions import read_questions

    if drafts.resolve() == out.resolve():
        raise SettingsError(f"'{out}' holds the drafts; name another file for accepted questions with --out.")
    asked = read_questions(drafts)
    labels = Labels(out)
    left = labels.left(asked)
    say(f"{len(left)} of {len(asked)} drafts to label. {_HELP[0].upper()}{_HELP[1:]}.")
    for place, one in enumerate(left, start=1):
        say(f"\n{place}/{len(left)}  {one.text}")
        say(f"    sources: {', '.join(sorted(one.relevance)) or 'none'}")
        if one.answer:
            say(f"    answer: {one.answer}")
        if not _decide(one, labels):
            break
    say(
        f"\n{counted(len(labels.accepted), 'question')} in '{out}', {counted(len(labels.left(asked)), 'draft')} left."
    )


def _decide(one: JudgedQuestion, labels: Labels) -> bool:
    """Take one decision; False ends."""
    while True:
        try:
            choice = input("    [a/r/e/n/s/q] ").strip().lower()
            edited = _edited(one) if choice == "e" else one
        except EOFError:
            return False  # Ctrl-D, in the middle of an edit too
        if choice == "a":
            labels.accept(one)
        elif choice == "r":
            labels.reject(one)
        elif choice == "n":
            labels.accept(replace(one, relevance={}, answer=None, answerable=False))
        elif choice == "e":
            labels.accept(edited)
        elif choice not in ("s", "q"):
            say(f"    {_HELP}")
            continue
        return choice != "q"


def _edited(one: JudgedQuestion) -> JudgedQuestion:
    """The question as somebody words it; an empty line keeps what is there."""
    text = _ask("question", one.text) or one.text
    names = _ask("sources, with ; between", "; ".join(sorted(one.relevance)))
    answer = _ask("answer", one.answer or "") or one.answer
    sources = {part.strip(): 1.0 for part in names.split(";") if part.strip()} if names else one.relevance
    return replace(one, text=text, relevance=sources, answer=answer)


def _ask(what: str, now: str) -> str:
    return input(printable(f"    {what} [{now}]: ")).strip()
