"""Deferred and stood-in packages: nothing is lost to those who use the whole of them later."""

from __future__ import annotations

import subprocess
import sys


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


COMMAND = "from llama_index_presets.packages.lazy_packages import run_as_command; run_as_command(); "
CUT = "from llama_index_presets.text.sentences import split_sentences as s; "


def test_a_command_cuts_sentences_without_the_rest_of_nltk() -> None:
    """Two of its modules suffice, with the same sentences; in other people's processes it is imported as usual."""
    text = "Dr. Who came at 5 p.m. on Mr. Smith's advice. He left. J. R. R. Tolkien, e.g., wrote. See Fig. 3."
    code = f"{CUT} import sys; print(s({text!r}), 'nltk' in sys.modules)"
    lean, usual = run(COMMAND + code), run(code)
    assert lean.endswith("False") and usual.endswith("True")
    assert lean.removesuffix("False") == usual.removesuffix("True")
    assert lean.startswith('["Dr. Who came')


def test_a_deferred_package_is_whole_for_whoever_asks_later() -> None:
    """Functions of nltk itself, its version and its stemmers are there after sentences were cut."""
    code = (
        "s('A. B.'); import nltk; from nltk.tokenize import WordPunctTokenizer; import nltk.stem; "
        "print(nltk.__version__ > '3', WordPunctTokenizer().tokenize('a-b'), nltk.wordpunct_tokenize('a-b'), "
        "nltk.stem.PorterStemmer().stem('running'), callable(nltk.FreqDist), s('C. D. He came. We left.'))"
    )
    assert run(COMMAND + CUT + code).startswith("True ['a', '-', 'b'] ['a', '-', 'b'] run True")


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


def test_a_stand_in_serves_as_annotation_and_says_so_when_used() -> None:
    """A class of it can be named, and not made."""
    code = (
        "from llama_index_presets.packages.lazy_packages import stand_in; stand_in('nowhere'); "
        "from nowhere.deep.models import Thing\n"
        "def f(x: Thing) -> Thing: ...\n"
        "try: Thing()\n"
        "except ImportError as error: print(error)"
    )
    assert run(code) == "nowhere.deep.models.Thing is not loaded in the command line of llama-presets."


def test_a_package_is_stood_in_for_only_inside_the_block() -> None:
    """Afterwards it is missing, as before."""
    code = (
        "import sys; from llama_index_presets.packages.lazy_packages import standing_in\n"
        "with standing_in('nowhere'):\n from nowhere import Frame\n"
        "try: import nowhere\n"
        "except ModuleNotFoundError as error: print(Frame.__name__, error.name)"
    )
    assert run(code) == "Frame nowhere"
