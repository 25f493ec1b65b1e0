"""Draw the front of docs/how-to/tune.md: tune on this documentation, with questions drafted from it by rules.

python docs/tune_figure.py [--configurations 16] [--questions 60]
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

from llama_index_presets.experiments.evaluation import Variant
from llama_index_presets.experiments.question_drafts import draft, passages
from llama_index_presets.experiments.tuning.plan import make_plan, run_plan
from llama_index_presets.ingest.previews.preview import preview

ROOT = Path(__file__).parent.parent
IMAGE = ROOT / "docs" / "images" / "tune-front.svg"


def main() -> None:
    """Tune and keep the figure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--configurations", type=int, default=16)
    parser.add_argument("--questions", type=int, default=60)
    options = parser.parse_args()
    documents = [str(ROOT / "docs" / "how-to")]
    questions = list(draft(passages(preview(documents)), options.questions))
    with tempfile.TemporaryDirectory() as folder:
        variant = Variant(preset="knowledge-base", storage=folder)
        plan = make_plan(
            variant, questions, documents, folder=Path(folder), count=options.configurations, offline=True,
            tried=["chunking=sentence", "chunk_tokens=none,64,128"],
        )  # fmt: skip
        report = run_plan(plan, lambda source, error: print(f"{source}: {error}"))
        shutil.copy(report.write(plan.folder)["figure"], IMAGE)
    print(report.verdict)
    for row in report.to_dict()["front"]:
        print(row)


if __name__ == "__main__":
    main()
