"""Modules of a package without its ``__init__``: the same code, and who wants the whole of it later gets it."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from llama_index_presets.packages.private_modules import PrivateModules


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


CUT = "from llama_index_presets.text.sentences import split_sentences as s; "
TEXT = "Dr. Who came at 5 p.m. on Mr. Smith's advice. He left. J. R. R. Tolkien, e.g., wrote. See Fig. 3."


@pytest.fixture
def greeting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package whose ``__init__`` fails, and whose modules import each other in every form there is."""
    root = tmp_path / "greeting"
    (root / "deep").mkdir(parents=True)
    (root / "__init__.py").write_text("raise RuntimeError('the whole package was imported')\n")
    (root / "words.py").write_text("HELLO = 'hello'\nruns = []\nruns.append(1)\n")
    (root / "deep" / "__init__.py").write_text("raise RuntimeError('the whole of deep was imported')\n")
    (root / "deep" / "say.py").write_text(
        "import json\nimport greeting.words\nfrom greeting import words\nfrom greeting.words import HELLO\n"
        "from .. import words as above\nfrom . import loud\n"
        "same = greeting.words is words is above\n"
        "def text():\n    from greeting.words import HELLO as again\n"
        "    return json.dumps([HELLO, again, loud.loud(HELLO)])\n"
    )
    (root / "deep" / "loud.py").write_text("def loud(text):\n    return text.upper()\n")
    (root / "broken.py").write_text("from greeting import nothing\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return "greeting"


def test_modules_import_each_other_without_the_package(greeting: str) -> None:
    """Absolute, relative, dotted and late imports all find the one copy, and `sys.modules` has none of it."""
    say = PrivateModules(greeting).load("greeting.deep.say")
    assert say.text() == '["hello", "hello", "HELLO"]'
    assert say.same
    assert not [name for name in sys.modules if name.partition(".")[0] == greeting]


def test_a_module_runs_once_for_all_threads(greeting: str) -> None:
    """Eight threads that ask at once get the same module."""
    modules, found = PrivateModules(greeting), []
    threads = [
        threading.Thread(target=lambda: found.append(modules.load("greeting.words"))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {id(module) for module in found} == {id(found[0])} and len(found) == 8
    assert found[0].runs == [1]


def test_what_is_missing_fails_as_an_import_does(greeting: str) -> None:
    """A module that is not there is named; one that fails is not kept half made."""
    modules = PrivateModules(greeting)
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'greeting\.nothing'"):
        modules.load("greeting.nothing")
    for _ in range(2):
        with pytest.raises(ImportError, match="cannot import name 'nothing' from 'greeting'"):
            modules.load("greeting.broken")
    with pytest.raises(ModuleNotFoundError, match="No module named 'not_installed_at_all'"):
        PrivateModules("not_installed_at_all").load("not_installed_at_all.part")


def test_sentences_are_cut_without_the_rest_of_nltk() -> None:
    """No nltk, scikit-learn, SciPy or pandas is imported, and the sentences are those of all of it."""
    code = f"import sys; print(s({TEXT!r}), any(m in sys.modules for m in ('nltk', 'sklearn', 'scipy', 'pandas')))"
    lean = run(CUT + code)
    whole = run(
        "import nltk; " + CUT + f"import sys; from llama_index_presets.text.sentences import _punkt; "
        f"print(s({TEXT!r}), type(_punkt()) is nltk.tokenize.punkt.PunktSentenceTokenizer)"
    )
    assert lean.endswith("False") and whole.endswith("True")
    assert lean.removesuffix("False") == whole.removesuffix("True")
    assert lean.startswith('["Dr. Who came')


def test_an_application_of_a_preset_loads_no_package_that_it_does_not_use(tmp_path: Path) -> None:
    """Building a preset, ingesting and asking, in somebody else's process."""
    documents = tmp_path / "documents"
    documents.mkdir()
    (documents / "a.txt").write_text("Dr. Smith prescribes 5 mg of aspirin. Take it daily with food. " * 40)
    (documents / "b.md").write_text("# Title\n\nMetformin lowers glucose. It is given twice daily.\n" * 20)
    code = (
        "import sys; from llama_index_presets import build; "
        f"engine = build('healthcare', storage={str(tmp_path / 'index')!r}, offline=True, "
        "settings={'store': 'duckdb'}); "
        f"report = engine.ingest({str(documents)!r}, show_progress=False); "
        "engine.query('What is the dose of aspirin?'); engine.close(); "
        "unused = ('nltk', 'sklearn', 'scipy', 'pandas', 'tiktoken_ext.openai_public', 'torch'); "
        "print(report.documents, [m for m in unused if m in sys.modules])"
    )
    assert run(code) == "2 []"


def test_nltk_is_whole_for_whoever_asks_later() -> None:
    """Functions of nltk itself, its version and its stemmers are there after sentences were cut."""
    code = (
        "s('A. B.'); import nltk; from nltk.tokenize import WordPunctTokenizer; import nltk.stem; "
        "print(nltk.__version__ > '3', WordPunctTokenizer().tokenize('a-b'), nltk.wordpunct_tokenize('a-b'), "
        "nltk.stem.PorterStemmer().stem('running'), callable(nltk.FreqDist), s('C. D. He came. We left.'))"
    )
    assert run(CUT + code).startswith("True ['a', '-', 'b'] ['a', '-', 'b'] run True")


def test_files_with_several_links_are_read(tmp_path) -> None:
    """uv installs packages as hard links, and nltk's own loader refuses such files."""
    code = (
        "import os, pathlib, llama_index.core; "
        "folder = pathlib.Path(llama_index.core.__file__).parent / '_static/nltk_cache/tokenizers/punkt_tab/english'; "
        f"copy = pathlib.Path({str(tmp_path)!r}) / 'core'; place = copy / folder.relative_to(folder.parents[4]); "
        "place.mkdir(parents=True); "
        "[(place / f.name).write_bytes(f.read_bytes()) for f in folder.iterdir()]; "
        "[os.link(f, str(f) + '.link') for f in list(place.iterdir())]; "
        "[os.rename(str(f), str(copy / f.name)) for f in list(place.glob('*.link'))]; "
        "llama_index.core.__file__ = str(copy / '__init__.py'); "
        "print(s('Dr. Who came. He left.'))"
    )
    assert run(CUT + code) == "['Dr. Who came. ', 'He left.']"
