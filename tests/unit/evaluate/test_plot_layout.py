"""The pages of `evaluate` and `estimate` in a real browser, wide and narrow, light and dark."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest
from tests.fixtures.browser import BROWSER, NO_BROWSER, layout_faults
from tests.unit.evaluate.test_measures import ASKED, OUTCOMES

from llama_index_presets.evaluate.plot import write_quality_page
from llama_index_presets.evaluate.results import make_result
from llama_index_presets.presets.estimates.answer import AnswerEstimate
from llama_index_presets.presets.estimates.estimate import Estimate
from llama_index_presets.presets.estimates.page import estimate_page
from llama_index_presets.report.charts import write_page

pytest.importorskip("playwright.sync_api", reason="playwright drives the browser")
pytestmark = [
    pytest.mark.slow("a browser: ten seconds"),
    pytest.mark.skipif(BROWSER is None, reason=NO_BROWSER),
]
LABEL = "financial-documents chunking=sentence-window chunk_tokens=512 reranker=cross-encoder/ms-marco-MiniLM-L6-v2"


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    results = [make_result(f"{LABEL} {number}", {}, ASKED, OUTCOMES, {}) for number in range(9)]
    estimate = Estimate(
        documents=1_234_567, unchanged=7_654_321, failed=(), chunks=98_765_432, cached=2_000_000, repeated=1_500_000,
        tokens=12_345_678_901, repeated_tokens=123_456_789, margin=0.0, cost_usd=Decimal("1234.567"), minutes=98_765.4,
        minutes_from="a rate limit of 1,000,000 tokens and 3,000 requests a minute", disk_bytes=10**12,
        model="text-embedding-3-large",
        answer=AnswerEstimate(
            model="gpt-5-mini", usd=Decimal("0.0123"), prompt_tokens=9_999, answer_tokens=150, read_usd=None,
            written_usd=None,
        ),
    )  # fmt: skip
    rows = [("Each answer", "$0.0123: gpt-5-mini reads 9,999 tokens and writes 150, without thinking")]
    return {
        "evaluate": write_quality_page(results, folder / "quality.html"),
        "estimate": write_page(estimate_page(estimate, rows), folder / "estimate.html"),
    }


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 390])
@pytest.mark.parametrize("page", ["evaluate", "estimate"])
def test_no_text_is_clipped_or_overlaps(pages: dict[str, Path], page: str, width: int, scheme: str) -> None:
    """Nine runs with long names, and large numbers; the page itself does not scroll sideways."""
    assert layout_faults(pages[page], width=width, scheme=scheme) == []
