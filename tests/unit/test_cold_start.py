"""`doctor --time`: the steps of one question in a fresh process."""

from __future__ import annotations

import pytest

from llama_index_presets.diagnose.cold_start import time_cold_question
from llama_index_presets.errors import PresetsError


@pytest.mark.slow("starts two processes that import LlamaIndex and LanceDB")
def test_the_steps_add_up_and_the_second_question_is_cheap() -> None:
    """The whole is the sum of its steps; the model is loaded once, so the same question again costs a fraction."""
    steps = time_cold_question("healthcare")
    *cold, whole, again = steps
    assert [step.name for step in cold][:2] == ["Python, and this package", "import LlamaIndex"]
    assert whole.cpu_s == pytest.approx(sum(step.cpu_s for step in cold))
    assert again.name == "second question" and again.cpu_s < whole.cpu_s / 3


def test_a_process_that_fails_says_why(tmp_path) -> None:
    """A preset that is none ends in one line, not in an empty table."""
    with pytest.raises(PresetsError, match="could not be timed: .*no-such-preset"):
        time_cold_question("no-such-preset", storage=str(tmp_path))
