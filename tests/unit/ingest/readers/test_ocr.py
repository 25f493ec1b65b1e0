"""Pictures of text: off by default, read by tesseract where the setting names languages, each lack one line."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from PIL import Image

from llama_index_presets.errors import IngestError, SettingsError
from llama_index_presets.ingest.limits import SizeLimit
from llama_index_presets.ingest.read import read_file
from llama_index_presets.ingest.sources.source import sources
from llama_index_presets.presets.settings import Settings

TESSERACT = """#!{python}
import pathlib, sys
if "--version" in sys.argv:
    print("tesseract 5.3.0")
elif "xxx" in sys.argv:
    sys.exit("Error opening data file xxx.traineddata")
else:
    pathlib.Path(sys.argv[2] + ".txt").write_text("Words of " + sys.argv[sys.argv.index("-l") + 1] + ".")
"""


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    path = tmp_path / "page.png"
    Image.new("L", (40, 20), 255).save(path)
    return path


@pytest.fixture
def tesseract(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program of that name with its command line; the real one is no Python package."""
    program = tmp_path / "bin" / "tesseract"
    program.parent.mkdir()
    program.write_text(TESSERACT.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")


def test_a_picture_says_what_would_read_it(scan: Path) -> None:
    """Off by default; the message has the setting, the extra and the program."""
    message = r'Set ocr .*pip install "llama-index-presets\[ocr\]".*install tesseract'
    with pytest.raises(IngestError, match=message):
        read_file(scan, "h")
    assert "set ocr to the languages" in next(iter(sources([scan]))).refusal


def test_a_picture_is_read_in_the_languages_of_the_setting(scan: Path, tesseract: None) -> None:
    """The text comes with a warning that it was recognized, and each frame of a TIFF is a page."""
    found = read_file(scan, "h", SizeLimit(ocr="eng+deu")).plain
    assert found.text.strip() == "Words of eng+deu."
    assert list(found.warnings) == ["Its text is recognized from a picture (eng+deu)."]
    frame = Image.new("L", (40, 20), 255)
    frame.save(scan.with_suffix(".tif"), save_all=True, append_images=[frame])
    pages = read_file(scan.with_suffix(".tif"), "h", SizeLimit(ocr="eng")).plain.pages
    assert [label for _, label in pages] == ["1", "2"]
    source = next(iter(sources([scan], limit=SizeLimit(ocr="eng"))))
    assert not source.refusal


def test_a_language_that_tesseract_lacks_is_named(scan: Path, tesseract: None) -> None:
    """Its own words, and how to install the data."""
    with pytest.raises(IngestError, match="xxx.traineddata.*Install its language data"):
        read_file(scan, "h", SizeLimit(ocr="xxx"))


def test_a_missing_tesseract_is_one_line(scan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The setting alone reads nothing."""
    monkeypatch.setenv("PATH", str(scan.parent))
    with pytest.raises(IngestError, match="tesseract is not installed. Install it"):
        read_file(scan, "h", SizeLimit(ocr="eng"))


def test_languages_are_checked_when_the_settings_are_made() -> None:
    """A typing error does not wait for the first scan, and no option of the program can be passed."""
    assert Settings(ocr="chi_sim+eng").ocr == "chi_sim+eng"
    with pytest.raises(SettingsError, match="ocr is 'eng --psm 6'; expected languages"):
        Settings(ocr="eng --psm 6")
