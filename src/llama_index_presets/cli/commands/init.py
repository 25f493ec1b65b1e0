"""Command `init`: three questions, and a project file that the other commands need no arguments beside."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from typer.core import TyperCommand

from llama_index_presets.cli.app import AsJson, Offline, app, complain, emit, say
from llama_index_presets.cli.project import STORAGE
from llama_index_presets.cli.terminal import can_ask, working
from llama_index_presets.errors import PresetsError, SettingsError
from llama_index_presets.presets.checks.readiness import obstacles
from llama_index_presets.presets.estimates.model_uses import model_uses
from llama_index_presets.presets.index.address import is_url
from llama_index_presets.presets.index.storage import resolve_storage
from llama_index_presets.presets.matrix import PRESETS, Preset
from llama_index_presets.presets.matrix import preset as find_preset
from llama_index_presets.presets.project.schema import SCHEMA_URL
from llama_index_presets.presets.project.settings_sources import load_settings
from llama_index_presets.values import PROJECT_FILE

__all__ = ["init"]

_Answer = TypeVar("_Answer")


@dataclass(slots=True, kw_only=True)
class _Choices:
    """What the file will say."""

    preset: str
    sources: list[str]
    storage: str
    offline: bool = False
    llm: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def row(self) -> Preset:
        """The row with the chosen model, as it will be built."""
        values, _ = load_settings({**self.settings, **({"llm": self.llm} if self.llm else {})}, self.preset)
        row = find_preset(self.preset).with_settings(values)
        return row.offline() if self.offline else row

    def missing(self) -> list[str]:
        """What stands between this file and an engine."""
        from llama_index_presets.presets.checks.offline import refuse_remote_cells
        from llama_index_presets.presets.index.stores import check_place

        row = self.row()
        if row.monitoring == "local":
            refuse_remote_cells(row, replaced=frozenset())
        lines = [one.line for one in obstacles(row, load_settings(dict(self.settings), self.preset)[0])]
        try:
            check_place(row.store, resolve_storage(self.storage), preset=row.name, local=self.offline)
        except SettingsError as error:
            lines.append(str(error))
        return lines

    def to_toml(self) -> str:
        """The file's text; JSON's texts, lists, numbers and booleans are TOML's too."""
        lines = [
            f"#:schema {SCHEMA_URL}",
            "# llama-presets commands in this folder and below take from here what they are not told.",
            f"preset = {_toml(self.preset)}",
            f"storage = {_toml(self.storage)}",
            f"sources = {_toml(self.sources)}",
        ]
        lines += ["offline = true  # networked parts have local counterparts"] if self.offline else []
        lines += [f"llm = {_toml(self.llm)}"] if self.llm else []
        lines += ["", "[settings]  # llama-presets show lists every one"]
        lines += [f"{name} = {_toml(value)}" for name, value in self.settings.items()]
        return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


@app.command(cls=TyperCommand)  # its options name what the file will say, not what one says
def init(
    preset: Annotated[
        str | None, typer.Option("--preset", help="Use case: a row of 'llama-presets list'.")
    ] = None,
    documents: Annotated[
        list[Path] | None, typer.Option("--documents", help="Folder or file with documents. Repeatable.")
    ] = None,
    llm: Annotated[
        str | None,
        typer.Option("--llm", metavar="NAME", help="Language model: openai/gpt-5-mini, ollama/llama3.2, …"),
    ] = None,
    storage: Annotated[str | None, typer.Option("--storage", help="Folder or URL of the index.")] = None,
    offline: Offline = None,  # type: ignore[assignment]  # None: asked, or decided by which keys are there
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing: take the proposed answers.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make a project file, llama-presets.toml, so that ingest, ask, chat, serve and costs need no arguments."""
    file = Path(PROJECT_FILE)
    if file.exists():
        raise SettingsError(
            f"There is a '{PROJECT_FILE}' here already; it is kept. Edit it, or delete it first."
        )
    asking = not yes and not as_json and can_ask()
    if not asking and not yes and (preset is None or not documents):
        raise SettingsError(
            "init asks on a terminal only. Here, name --preset and --documents, or take the proposals with --yes."
        )
    chosen = _choose(preset, documents, llm, storage, offline, asking)
    with working("Checking"):
        missing = chosen.missing()
    text = chosen.to_toml()
    try:
        with file.open("x", encoding="utf-8") as opened:
            opened.write(text)
    except FileExistsError:
        raise SettingsError(f"There is a '{PROJECT_FILE}' here already; it is kept.") from None
    if as_json:
        emit({"file": str(file.absolute()), "preset": chosen.preset, "storage": chosen.storage,
              "sources": chosen.sources, "offline": chosen.offline, "llm": chosen.llm, "missing": missing})  # fmt: skip
        return
    say(f"Written: {PROJECT_FILE}\n\n{text}")
    for line in missing:
        complain(f"Still missing: {line}")
    say('Next: llama-presets ingest\nThen: llama-presets ask "…", chat, serve, costs, doctor')


def _choose(
    preset: str | None, documents: list[Path] | None, llm: str | None, storage: str | None,
    offline: bool | None, asking: bool,
) -> _Choices:  # fmt: skip
    settings: Mapping[str, Any] = {}
    if preset is None:
        preset, swap, settings = _ask_use_case() if asking else ("knowledge-base", None, {})
        offline = swap if offline is None else offline
    row = find_preset(preset)
    if documents is None:
        documents = [_again(_ask_documents)] if asking else [_proposed_documents()]
    sources = [_existing(path) for path in documents]
    chosen = _Choices(
        preset=row.name, sources=sources, storage=storage or _beside(sources), settings=settings
    )
    chosen.offline = bool(offline)
    if llm is not None:
        chosen.llm = llm
        chosen.row()  # a name that cannot be read is refused
    if offline is None and (llm is not None or not asking):
        chosen.offline = _keys_are_missing(chosen)
    elif llm is None and asking and offline is None:
        _again(lambda: _ask_model(chosen))
    return chosen


def _again(ask: Callable[[], _Answer]) -> _Answer:
    """Ask until the answer is one that can be used."""
    while True:
        try:
            return ask()
        except PresetsError as error:
            complain(str(error))


# -- the three questions ----------------------------------------------------------------------------------------------


def _ask_use_case() -> tuple[str, bool | None, Mapping[str, Any]]:
    say("1. What is it for?")
    for number, (name, row) in enumerate(PRESETS.items(), start=1):
        say(f"   {number}  {name:<20} {row.use_case}")
    say("   ?  a few questions more, and a recommendation")

    def ask() -> tuple[str, bool | None, Mapping[str, Any]]:
        answer = str(typer.prompt("   Number, name or ?", default="1")).strip()
        if answer == "?":
            from llama_index_presets.advise.recommend import recommend
            from llama_index_presets.cli.commands.recommend import interview

            best = recommend(interview()).best
            say(f"   Recommended: {best.preset}{' --offline' if best.offline else ''}")
            return best.preset, best.offline or None, best.settings
        names = list(PRESETS)
        if answer.isdecimal() and 0 < int(answer) <= len(names):
            return names[int(answer) - 1], None, {}
        return find_preset(answer).name, None, {}

    return _again(ask)


def _ask_documents() -> Path:
    answer = typer.prompt("2. Where are the documents?", default=str(_proposed_documents()))
    found = Path(str(answer).strip())
    _existing(found)
    return found


def _ask_model(chosen: _Choices) -> None:
    row = find_preset(chosen.preset)
    hosted = not all(part.local for part in row.parts().values())
    say("3. Which models?")
    say("   1  on this machine: no key, nothing is sent; answers quote the documents")
    if hosted:
        say(f"   2  hosted: {_models(row)}")
    say("   or name a language model: ollama/llama3.2, openai/gpt-5-mini, http://localhost:8080/v1#name")
    proposed = "1" if not hosted or _keys_are_missing(chosen) else "2"
    answer = str(typer.prompt("   Number or name", default=proposed)).strip()
    chosen.llm = None
    if answer in ("1", "2") and (hosted or answer == "1"):
        chosen.offline = hosted and answer == "1"
        return
    chosen.llm, chosen.offline = answer, False
    try:
        chosen.offline = _keys_are_missing(chosen)
        chosen.missing()
    except PresetsError:
        chosen.llm = None
        raise


def _models(row: Preset) -> str:
    uses = model_uses(row, load_settings(None, row.name)[0])
    return ", ".join(f"{use.name} ({use.key_state})" if use.key else use.name for use in uses)


def _keys_are_missing(chosen: _Choices) -> bool:
    """Whether a hosted part has no key here, so that its local counterpart is proposed; a named model is kept."""
    row = chosen.row()
    uses = model_uses(row, load_settings(None, row.name)[0])
    return any(use.key and not use.key_from for use in uses if not (use.part == "llm" and chosen.llm))


# -- places -----------------------------------------------------------------------------------------------------------


def _proposed_documents() -> Path:
    return next((Path(name) for name in ("documents", "docs") if Path(name).is_dir()), Path())


def _existing(path: Path) -> str:
    """A path as the file writes it: relative to it where it lies below."""
    found = path.expanduser()
    if not found.exists():
        raise SettingsError(f"There is no '{path}'. Name a file or folder that exists.")
    relative = os.path.relpath(found)
    return str(found) if relative.startswith("..") and found.is_absolute() else Path(relative).as_posix()


def _beside(sources: list[str]) -> str:
    """Default storage; hidden where a source would otherwise contain it, since ingest passes hidden files over."""
    here = Path.cwd()
    inside = any(here.is_relative_to(Path(source).resolve()) for source in sources if not is_url(source))
    return f".{STORAGE}" if inside else STORAGE
