"""The house is as the documentation draws it: folders, arrows, circles, names, public surface."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import grimp

import llama_index_presets

ROOT = Path(__file__).parents[2]
SRC = ROOT / "src" / "llama_index_presets"
PACKAGE = "llama_index_presets"
STAGES = ("ingest", "embed", "store", "retrieve", "rerank", "answer", "monitor", "evaluate")
# Modules that still import each other, TYPE_CHECKING counted. This list may only get shorter.
CIRCLES: tuple[set[str], ...] = ()


MOST_ENTRIES = 18
MOST_LINES = 500


def entries(folder: Path) -> list[Path]:
    """Files and folders of a folder, without what Python keeps there."""
    return [path for path in folder.iterdir() if path.name != "__pycache__"]


def test_a_folder_and_a_module_fit_a_reader() -> None:
    """No folder has more than 18 entries, files and folders, and no module more than 500 lines."""
    folders = [path for path in SRC.rglob("*/") if path.is_dir() and path.name != "__pycache__"]
    crowded = {
        folder.relative_to(SRC).as_posix() for folder in folders if len(entries(folder)) > MOST_ENTRIES
    }
    assert crowded == set()
    long = [path.name for path in SRC.rglob("*.py") if path.read_text("utf-8").count("\n") > MOST_LINES]
    assert long == []


def test_the_root_is_the_table_of_contents() -> None:
    """The root has a screen of files at most, and the map of CONTRIBUTING.md has a row for each of its folders."""
    files = [path for path in entries(SRC) if path.is_file()]
    assert len(files) <= MOST_ENTRIES
    rows = re.findall(r"^\| `(\w+)/` \|", (ROOT / "CONTRIBUTING.md").read_text("utf-8"), re.MULTILINE)
    assert sorted(rows) == sorted(path.name for path in entries(SRC) if path.is_dir())


FOUNDATION = {"concurrency", "files", "packages", "text"}
"""Folders that any other may import; the layers of pyproject.toml hold their order."""


@cache
def imports() -> dict[str, set[str]]:
    """Module -> modules of ours that it imports, also inside functions and under TYPE_CHECKING."""
    graph = grimp.build_graph(PACKAGE, exclude_type_checking_imports=False, cache_dir=None)
    return {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}


def folder_arrows() -> set[tuple[str, str]]:
    """Imports between the folders of the package; what everyone stands on is left out, and single files at its root."""
    folders = {path.parent.name for path in SRC.glob("*/__init__.py")} - FOUNDATION
    pairs = {
        (source.split(".")[1], target.split(".")[1])
        for source, targets in imports().items()
        for target in targets
        if source.count(".") and target.count(".")
    }
    return {(source, target) for source, target in pairs if source != target and {source, target} <= folders}


def reachable(start: str, arrows: set[tuple[str, str]]) -> set[str]:
    """Everything that a walk along the arrows reaches."""
    seen: set[str] = set()
    queue = [start]
    while queue:
        here = queue.pop()
        for target in {to for source, to in arrows if source == here} - seen:
            seen.add(target)
            queue.append(target)
    return seen


def test_the_picture_has_the_arrows_of_the_import_graph() -> None:
    """An arrow is drawn for each import between folders, unless a longer way along drawn arrows says it already."""
    picture = re.search(
        r"```mermaid\n(.*?)```", (ROOT / "docs" / "data-flow.md").read_text("utf-8"), re.DOTALL
    )
    assert picture is not None
    drawn = {
        (source, target)
        for left, right in re.findall(r"^ *([\w &]+?) --> ([\w &]+)$", picture[1], re.MULTILINE)
        for source in left.split(" & ")
        for target in right.split(" & ")
    }
    arrows = folder_arrows()
    needed = {(a, b) for a, b in arrows if b not in reachable(a, arrows - {(a, b)})}
    assert drawn == needed


def test_modules_do_not_import_each_other_in_circles() -> None:
    """No module reaches itself, imports under TYPE_CHECKING and inside functions counted; the list only shrinks."""
    arrows = {(source, target) for source, targets in imports().items() for target in targets}
    reach = {module: reachable(module, arrows) for module in imports()}
    circles = {
        frozenset(other.removeprefix(f"{PACKAGE}.") for other in reach[module] if module in reach[other])
        for module in reach
        if module in reach[module]
    }
    assert [sorted(circle) for circle in circles if not any(circle <= known for known in CIRCLES)] == []


@cache
def nodes(path: Path) -> list[ast.AST]:
    """All nodes of a source file, read once for all rules."""
    return list(ast.walk(ast.parse(path.read_text("utf-8"))))


def defined_names(stage: str) -> set[str]:
    """Classes of a stage folder, and their methods as ``Class.method``."""
    classes = [
        node for path in (SRC / stage).rglob("*.py") for node in nodes(path) if isinstance(node, ast.ClassDef)
    ]
    methods = {
        f"{node.name}.{member.name}" for node in classes for member in node.body if hasattr(member, "name")
    }
    return {node.name for node in classes} | methods


def literals(path: Path) -> list[str]:
    """Each string of a file that is no docstring and no type parameter's name."""
    skipped = {
        id(part)
        for node in nodes(path)
        for part in (
            [node.value] if isinstance(node, ast.Expr) else
            node.args[:1] if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "TypeVar" else []
        )
    }  # fmt: skip
    return [
        node.value
        for node in nodes(path)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in skipped
    ]


# "file: name" -> why the text has to name something of another stage.
ALLOWED_LITERALS = {
    "ingest/plain_text.py: Mark": "an alias of its own; the class of the keyword index has the same name",
}


def test_no_stage_names_a_class_or_method_of_another_in_a_string() -> None:
    """Such a string is an import that no linter sees: renaming the method would silently lose what depends on it."""
    names = {stage: defined_names(stage) for stage in STAGES}
    hits = set()
    for stage in STAGES:
        foreign = set().union(*(names[other] for other in STAGES if other != stage)) - names[stage]
        for path in (SRC / stage).rglob("*.py"):
            for text in literals(path):
                dotted = {text, *re.findall(r"\b[A-Za-z_]\w*\.\w+", text)}
                hits |= {f"{path.relative_to(SRC).as_posix()}: {name}" for name in dotted & foreign}
    assert hits == set(ALLOWED_LITERALS)


def test_the_reference_publishes_root_names_only() -> None:
    """Files may move freely: the reference names the root, the tracing namespace, `store.move.move` and the errors."""
    documented = set(
        re.findall(
            r"^::: llama_index_presets\.([\w.]+)",
            (ROOT / "docs/reference/index.md").read_text(),
            re.MULTILINE,
        )
    )
    namespaces = {"errors", "store.move.move", "monitor.traces.trace_to", "monitor.traces.Traces"}
    assert documented - namespaces == set(llama_index_presets.__all__)
    assert namespaces <= documented


def test_pages_import_root_names_from_the_root() -> None:
    """A reader learns one way to import a name, the one that stays when files move."""
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "recipes").rglob("*.py")]
    deep = [
        f"{page.relative_to(ROOT).as_posix()}: {name.strip()}"
        for page in pages
        if "decisions" not in page.parts
        for _, names in re.findall(
            r"from (llama_index_presets\.[\w.]+) import ([\w, ]+)", page.read_text("utf-8")
        )
        for name in names.split(",")
        if name.strip().split(" ")[0] in llama_index_presets.__all__
    ]
    assert deep == []


def test_files_that_the_map_and_the_glossary_name_exist() -> None:
    """CONTRIBUTING.md and the glossary lead to files, folders and functions that are there."""
    for page in (ROOT / "CONTRIBUTING.md", ROOT / "docs" / "glossary.md"):
        text = page.read_text("utf-8")
        paths = re.findall(r"`([\w./-]+/[\w./-]*)`", text)
        missing = [path for path in paths if not any((base / path).exists() for base in (ROOT, SRC))]
        assert missing == []
        for path, name in re.findall(r"`([\w./]+\.py)::([\w.]+)`", text):
            base = SRC if (SRC / path).exists() else ROOT
            source = (base / path).read_text("utf-8")
            assert re.search(
                rf"^\s*(?:async )?(?:def|class) {name.split('.')[-1]}\b", source, re.MULTILINE
            ), (path, name)


def test_the_glossary_explains_each_term_once() -> None:
    """Terms are in alphabetical order, so that a second entry for one would stand beside the first."""
    terms = re.findall(r"^\*\*(.+?)\*\*", (ROOT / "docs" / "glossary.md").read_text("utf-8"), re.MULTILINE)
    assert terms == sorted(set(terms), key=str.lower)
