"""Pages name commands, options, settings and places in the navigation that are there."""

from __future__ import annotations

import contextlib
import functools
import importlib
import re
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import typer

from llama_index_presets import PRESETS
from llama_index_presets.cli import app
from llama_index_presets.presets.settings import settings_class
from llama_index_presets.providers.options import EMBEDDING, LLM, RERANKER
from llama_index_presets.serve.config import EngineConfig, Limits, ServeConfig

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md")), *sorted((ROOT / "recipes").rglob("*.md"))]
OF_THE_SHELL = {"install-completion", "show-completion", "help"}
SETTINGS = {one.name for preset in PRESETS for one in fields(settings_class(preset))}
PROJECT = {
    "preset",
    "storage",
    "sources",
    "offline",
    "llm",
    "embedding",
    "reranker",
    "settings",
    "serve",
    "engines",
}
MODELS = {"name", *LLM, *EMBEDDING, *RERANKER}
SERVER = {one.name for kind in (ServeConfig, EngineConfig, Limits) for one in fields(kind)}


def options_of(command: Any) -> set[str]:
    return {name for one in command.params for name in (*one.opts, *one.secondary_opts)} | {
        "--help",
        "--debug",
    }


def named_commands() -> Iterator[tuple[Path, str, Any, list[str]]]:
    """Page, text, command and the words behind it, for each ``llama-presets COMMAND …``."""
    root = typer.main.get_command(app)
    for page in PAGES:
        text = page.read_text("utf-8").replace("\\\n", " ")
        for found in re.finditer(r"llama-presets((?:[ \t]+[^\s`|;&()<>#]+)+)", text):
            command: Any = root
            words = [word.strip(".,:'\"") for word in found[1].split()]
            while words and words[0] in getattr(command, "commands", {}):
                command = command.commands[words.pop(0)]
            yield page, found[0], command, words


def test_commands_of_the_pages_exist() -> None:
    """In code, the word behind the program is a command or an option of it."""
    root: Any = typer.main.get_command(app)
    unknown = [
        (page.name, name)
        for page in PAGES
        for name in re.findall(
            r"(?:^|`)llama-presets (?:--)?([a-z-]+)", page.read_text("utf-8"), re.MULTILINE
        )
        if name not in root.commands and name not in OF_THE_SHELL and f"--{name}" not in options_of(root)
    ]
    assert unknown == []


def test_options_of_the_pages_exist() -> None:
    """Each option behind a command is one of that command; at least 100 are looked at."""
    named = [
        (page.name, text, command, word.partition("=")[0])
        for page, text, command, words in named_commands()
        for word in words
        if re.match(r"--[a-z]", word)
    ]
    assert len(named) > 100
    assert [(page, text) for page, text, command, option in named if option not in options_of(command)] == []


def commands(command: Any, name: str = "llama-presets") -> Iterator[tuple[str, Any]]:
    """Each command that does something, with its whole name."""
    below = getattr(command, "commands", None)
    if below is None:
        yield name, command
    for word, one in (below or {}).items():
        yield from commands(one, f"{name} {word}")


def test_every_command_and_option_is_on_a_page() -> None:
    """What no page mentions does not exist for users; an option may stand on any page, as many have the same one."""
    text = "\n".join(page.read_text("utf-8") for page in PAGES)
    every = dict(commands(typer.main.get_command(app)))
    assert [name for name in every if name not in text] == []
    options = {
        option
        for command in every.values()
        for one in command.params
        if not one.hidden
        for option in one.opts
        if option.startswith("--")
    }
    assert [name for name in sorted(options) if not re.search(rf"{name}(?![\w-])", text)] == []


def test_every_setting_is_on_a_page() -> None:
    """A setting that no page names is found by nobody; options of models are the tables of their page."""
    text = "\n".join(page.read_text("utf-8") for page in PAGES if page.parent.name != "decisions")
    assert [
        name
        for name in sorted(SETTINGS)
        if not name.endswith("_options") and not re.search(rf"\b{name}\b", text)
    ] == []


def test_settings_of_the_pages_exist() -> None:
    """What a page sets as ``name = value`` is a setting, or a key of a model, a server or a project."""
    known = SETTINGS | PROJECT | MODELS | SERVER
    value = r"(?:\"[^`]*\"|'[^`]*'|\[[^`]*\]|[0-9][\d._]*|true|false|inf)"
    unknown = [
        (page.name, name)
        for page in PAGES
        if page.parent.name != "decisions"
        for name in re.findall(rf"`([a-z_]+) = {value}`", page.read_text("utf-8"))
        if name not in known
    ]
    assert unknown == []


OF_OTHERS = {
    "json_get_int", "partial_format", "post_fork", "ts_rank",  # functions of other programs
    "async_engine", "halfvec_l2_ops", "num_ctx", "sample_rate", "test_forks",  # names in them, in requests, in tests
    "data_lorem_ipsum_embedding_idx", "part_no_7",  # examples
}  # fmt: skip
"""Names on the pages that are not ours."""
FROM_OUTSIDE = {"PGPASSWORD", "PHOENIX_GRPC_PORT", "PHOENIX_HOST"}
"""Variables that a library or a server reads."""


def source() -> str:
    """Everything in the package that is text."""
    files = [path for path in (ROOT / "src").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    return "\n".join(path.read_text("utf-8", "ignore") for path in files)


def test_names_on_the_pages_occur_in_the_code() -> None:
    """A function, a key, a metric or a variable that was renamed keeps its old name on no page."""
    words = set(re.findall(r"\w+", source())) | OF_OTHERS | FROM_OUTSIDE
    words |= {f"llama_presets_{word}_total" for word in words} | {
        f"LLAMA_PRESETS_{one.upper()}" for one in SETTINGS
    }
    unknown = [
        (page.name, name)
        for page in PAGES
        if page.parent.name != "decisions"
        for name in re.findall(
            r"`([a-z][a-z0-9]*(?:_[a-z0-9]+)+|[A-Z]+(?:_[A-Z]+)+)`", page.read_text("utf-8")
        )
        if name not in words
    ]
    assert unknown == []


def resolves(name: str) -> bool:
    """Whether a dotted name is a module of ours, or something in one."""
    parts = name.split(".")
    for place in range(len(parts), 0, -1):
        with contextlib.suppress(ModuleNotFoundError):
            found: Any = importlib.import_module(".".join(parts[:place]))
            with contextlib.suppress(AttributeError):
                functools.reduce(getattr, parts[place:], found)
                return True
            return False
    return False


def test_dotted_names_on_the_pages_resolve() -> None:
    """What a page says where to import from is there, in its text as in its code, which is run."""
    named = {
        (page.name, name)
        for page in PAGES
        if page.parent.name != "decisions"
        for name in re.findall(r"`(llama_index_presets(?:\.\w+)+)", page.read_text("utf-8"))
        if not name.endswith((".py", ".toml"))
    }
    assert len(named) > 20
    assert sorted((page, name) for page, name in named if not resolves(name)) == []


def test_files_on_the_pages_exist() -> None:
    """Benchmarks, tests and recipes are named where they are; so is what decisions say of today's tree elsewhere."""
    missing = [
        (page.name, name)
        for page in PAGES
        if page.parent.name != "decisions"
        for name in re.findall(
            r"(?<![\w/.-])((?:benchmarks|deploy|docs|recipes|tests|tools)/[\w./-]+\.\w+)",
            page.read_text("utf-8"),
        )
        if not (ROOT / name).exists()
    ]
    assert missing == []


WITH_TOML = [page for page in PAGES if "```toml" in page.read_text("utf-8")]


@pytest.mark.parametrize("page", WITH_TOML, ids=lambda page: page.stem)
def test_toml_of_the_pages_can_be_read(page: Path) -> None:
    """Each block is TOML; its top level holds settings, tables of presets and models, or what a project holds."""
    for block in re.findall(r"```toml\n(.*?)```", page.read_text("utf-8"), re.DOTALL):
        content = tomllib.loads(block)
        if page.name != "embeddings.md":  # a catalogue of models, whose tables have the models' names
            assert sorted(content.keys() - SETTINGS - PROJECT - set(PRESETS)) == []


# -- navigation -----------------------------------------------------------------------------------------------------


def navigation() -> str:
    return (ROOT / "mkdocs.yml").read_text("utf-8").partition("\nnav:\n")[2]


def test_the_navigation_has_every_page_once() -> None:
    """A page that is not in it is found by a search alone."""
    listed = re.findall(r"(\S+\.md)$", navigation(), re.MULTILINE)
    assert sorted(listed) == sorted(page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md"))


def test_the_navigation_is_in_the_order_of_questions() -> None:
    """Decisions, which few look for, come last, in the order of their numbers."""
    sections = re.findall(r"^  - ([A-Z][\w -]+):", navigation(), re.MULTILINE)
    assert sections == [
        "Home", "Start", "Choose", "Use cases", "Components", "How-to", "Measured", "Reference", "Project",
    ]  # fmt: skip
    decisions = re.findall(r"decisions/(\d+)", navigation())
    assert decisions == sorted(decisions)
    assert navigation().rstrip().splitlines()[-1].strip().startswith("- decisions/")
