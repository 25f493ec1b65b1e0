"""README's three ways in print what it says, from an empty folder with the recipes in it."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
WAYS = [
    (language, code, re.sub(r"^# ?", "", shown, flags=re.MULTILINE))
    for language, code, shown in re.findall(
        r"^```(python|sh)\n((?:(?!```|# ).*\n)+)((?:# .*\n)+)```$", README, re.MULTILINE
    )
]
"""Language, code and what it prints, which stands below it in comments."""
SCORE = re.compile(r"score \d\.\d+")


def test_there_are_three_ways_of_at_most_six_lines() -> None:
    """One part, a use case, the shell; and what a reader sees in a minute is no longer than a page."""
    assert [language for language, _, _ in WAYS] == ["python", "python", "sh"]
    assert max(len(code.splitlines()) for _, code, _ in WAYS) <= 6
    assert len(README.splitlines()) <= 66


@pytest.mark.slow("processes that load an engine")
@pytest.mark.parametrize(("language", "code", "shown"), WAYS, ids=["part", "use case", "shell"])
def test_a_way_prints_what_is_written(tmp_path: Path, language: str, code: str, shown: str) -> None:
    """The last command's standard output begins with what the comments show, scores aside."""
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    commands = (
        [[sys.executable, "-c", code]]
        if language == "python"
        else [
            [sys.executable, "-m", "llama_index_presets", *shlex.split(line)[1:]]
            for line in code.splitlines()
        ]
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "HF_HUB_OFFLINE": "1"}
    out = ""
    for command in commands:
        done = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, check=False, env=environment
        )
        assert done.returncode == 0, done.stderr
        out = done.stdout
    assert SCORE.sub("score", out).startswith(SCORE.sub("score", shown))


@pytest.mark.slow("what make demo runs")
def test_the_demo_shows_each_step_and_where_to_look_next(tmp_path: Path) -> None:
    """Retrieval, a citation to the word, abstention, a filter, the cost; the picture is of the same run."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "demo.py")], capture_output=True, text=True, check=True, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    steps = re.findall(r"^== (\w+)", done.stdout, re.MULTILINE)
    assert steps == ["Retrieval", "Answer", "Abstention", "Filter", "Cost", "Next"]
    assert 'characters [160, 231]:\n      "A pen in use may be kept at room temperature' in done.stdout
    assert done.stdout.count("I don't know.") == 2 and "llama-presets init" in done.stdout
    picture = (ROOT / "docs" / "images" / "demo.svg").read_text("utf-8").replace("&#160;", " ")
    assert "Retrieval: the passages nearest to a question" in picture and "@font-face" not in picture
    assert str(ROOT) not in picture
