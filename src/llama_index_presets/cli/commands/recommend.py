"""Command `recommend`: choice of a preset, from words, flags or a JSON object, or asked for on a terminal."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llama_index_presets.cli.app import AsJson, app, emit, print_table, say, table
from llama_index_presets.cli.terminal import can_ask
from llama_index_presets.errors import SettingsError

if TYPE_CHECKING:
    from llama_index_presets.advise.recommend import RankedPreset, Recommendation

__all__ = ["interview", "recommend"]


@app.command()
def recommend(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            help="The case in words: its field, what must hold, and numbers. Flags go before it.",
            show_default=False,
        ),
    ] = None,
    requirements: Annotated[
        Path | None,
        typer.Option("--requirements", help="JSON file with the requirements; '-' reads standard input."),
    ] = None,
    documents: Annotated[int | None, typer.Option("--documents", min=0, help="How many documents.")] = None,
    queries: Annotated[int | None, typer.Option("--queries", min=0, help="Questions per month.")] = None,
    private: Annotated[
        bool | None, typer.Option("--private/--no-private", help="No text may leave the machine.")
    ] = None,
    offline: Annotated[
        bool | None, typer.Option("--offline/--no-offline", help="There is no network.")
    ] = None,
    postgres: Annotated[
        bool | None, typer.Option("--postgres/--no-postgres", help="A PostgreSQL is there already.")
    ] = None,
    gpu: Annotated[bool | None, typer.Option("--gpu/--no-gpu", help="A GPU can run models.")] = None,
    images: Annotated[
        bool | None, typer.Option("--images/--no-images", help="Images are to be found too.")
    ] = None,
    priority: Annotated[str | None, typer.Option("--priority", help="accuracy, balanced or cost.")] = None,
    customers: Annotated[
        bool | None, typer.Option("--customers/--no-customers", help="Answers face customers.")
    ] = None,
    exact_words: Annotated[
        bool | None,
        typer.Option(
            "--exact-words/--no-exact-words", help="Acronyms, part numbers, tickers or names matter."
        ),
    ] = None,
    near_duplicates: Annotated[
        bool | None,
        typer.Option("--near-duplicates/--no-near-duplicates", help="Many passages are almost alike."),
    ] = None,
    audited: Annotated[
        bool | None, typer.Option("--audited/--no-audited", help="Every query needs a record.")
    ] = None,
    budget: Annotated[
        float | None, typer.Option("--budget", min=0, help="Most that a month may cost, in US dollars.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Recommend presets for a use case, with reasons, costs and those ruled out."""
    flags = {
        "documents": documents, "queries_per_month": queries, "private": private, "offline": offline,
        "postgres": postgres, "gpu": gpu, "priority": priority, "customers": customers, "exact_words": exact_words,
        "near_duplicates": near_duplicates, "audited": audited, "budget_usd": budget,
        "modalities": None if images is None else ["text", "image"] if images else ["text"],
    }  # fmt: skip
    given = {name: value for name, value in flags.items() if value is not None}
    case = " ".join(words or ())
    if requirements is not None:
        given = {**_read(requirements), **given}
    elif not given and not case and can_ask() and not as_json:
        given = interview()
    elif not given and not case:
        raise SettingsError(
            'Nothing is known of your case. Describe it (recommend "patient records, 2000 documents"), give flags '
            "(--documents 5000 --private …) or --requirements FILE, or run it on a terminal to be asked."
        )
    from llama_index_presets.advise.recommend import recommend as choose

    found = choose(case, **given) if case else choose(given)
    if as_json:
        emit(found.to_dict())
    else:
        _show(found)
    _ = found.best  # nothing fits: the error says which rules leave nothing


def _read(path: Path) -> dict[str, Any]:
    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8")
        content = json.loads(text)
    except (OSError, ValueError) as error:
        raise SettingsError(f"'{path}' is not a readable JSON file ({error}).") from error
    if not isinstance(content, dict):
        raise SettingsError(f"'{path}' holds a JSON {type(content).__name__}; expected an object.")
    return content


def interview() -> dict[str, Any]:
    """Ask one question after the other; Enter takes the answer in brackets."""
    ask, confirm = typer.prompt, typer.confirm
    given: dict[str, Any] = {"documents": ask("How many documents?", default=10_000, type=int)}
    given["queries_per_month"] = ask("How many questions a month?", default=10_000, type=int)
    given["private"] = confirm("Must all text stay on the machine?", default=False)
    if not given["private"]:
        given["offline"] = confirm("Must it work without a network?", default=False)
    if confirm("Are there images to be found?", default=False):
        given["modalities"] = ["text", "image"]
    given["postgres"] = confirm("Is there a PostgreSQL already?", default=False)
    given["gpu"] = confirm("Is there a GPU for models?", default=False)
    given["customers"] = confirm("Do customers see the answers?", default=False)
    given["exact_words"] = confirm("Do acronyms, part numbers, tickers or names matter?", default=False)
    given["near_duplicates"] = confirm("Are many passages almost alike?", default=False)
    given["audited"] = confirm("Does every query need a record?", default=False)
    given["priority"] = ask("What decides: accuracy, balanced or cost?", default="balanced")
    limit = ask(
        "Most that a month may cost, in US dollars (empty: no limit)?", default="", show_default=False
    )
    try:
        return {**given, "budget_usd": float(limit)} if limit else given
    except ValueError as error:
        raise SettingsError(f"The budget is '{limit}'; expected a number of US dollars.") from error


def _show(found: Recommendation) -> None:
    if found.understood:
        _show_understood(found)
    if found.ranked:
        shown = table("Preset", "Score", "A month", "Once", "Not priced")
        for row in found.ranked:
            name = f"{row.preset} --offline" if row.offline else row.preset
            bill = row.bill
            month, once = f"${bill.total('month'):,.2f}", f"${bill.total('once'):,.2f}"
            shown.add_row(name, str(row.score), month, once, ", ".join(bill.unpriced) or "-")
        print_table(shown)
        _explain(found.best)
    for out in found.ruled_out:
        say(f"Ruled out: {out.preset}")
        for reason in out.reasons:
            say(f"  {reason.quote} ({reason.rule})")


def _show_understood(found: Recommendation) -> None:
    taken = found.requirements.to_dict()
    say("Read from your words (a flag corrects it):")
    for part in found.understood:
        words = ", ".join(f"'{word}'" for word in part.words)
        if not part.field:
            say(f"  nothing special: {words}")
        elif taken[part.field] == part.value:
            say(f"  {part.field} = {_as_text(part.value)}: {words}")
    say("")


def _as_text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int | float) else str(value)


def _explain(best: RankedPreset) -> None:
    say(f"\n{best.preset}{' with --offline' if best.offline else ''}")
    for sign, reasons in (("+", best.reasons), ("-", best.cautions), ("*", best.suggestions)):
        for reason in reasons:
            say(f"  {sign} {reason.quote} ({reason.rule})")
    if best.settings:
        say(f"  suggested: {', '.join(f'{name} = {value}' for name, value in best.settings.items())}")
    say("  What it costs:")
    for line in best.bill.lines:
        cost = "not priced" if line.usd is None else f"${line.usd:,.2f}"
        say(f"    {line.what}: {cost} {'once' if line.per == 'once' else 'a month'} ({line.arithmetic})")
    say(f"\nNext: llama-presets show {best.preset}\n")
