"""Find workshop signs by words and by pictures; nothing leaves this machine."""

import argparse
import os
import tempfile
from pathlib import Path

from llama_index.core.schema import QueryBundle

from llama_index_presets import ClipEmbedding, build

HERE = Path(__file__).parent
PHOTO = HERE / "photo-of-a-sign.jpg"
QUESTIONS = {
    "A text finds pictures": "red circle",
    "A text finds a passage and its picture": "What does the yellow triangle warn of?",
    "A picture finds its like": QueryBundle("", image_path=str(PHOTO)),
    "A picture and a word together": QueryBundle("red", image_path=str(PHOTO)),
}


def main(storage: str, model: str) -> None:
    """Ingest the signs, ask with words and with a photo, show the sources."""
    with build("multi-modal", storage=storage, embed_model=ClipEmbedding(model)) as engine:
        report = engine.ingest(HERE / "documents")
        print(f"{report.documents} documents, {report.unchanged} unchanged, {report.chunks} vectors")
        for failure in report.failed:
            print(f"left out: {failure.error.rpartition(os.sep)[-1]}")
        for title, question in QUESTIONS.items():
            response = engine.query(question)
            print(f"\n{title}: {question if isinstance(question, str) else PHOTO.name}\n{response}")
            for citation in response.metadata["citations"]:
                image = citation.get("image")
                size = f", {image['width']} x {image['height']}" if image else ""
                print(f"  [{citation['n']}] {Path(citation['source']).name}{size}, {citation['score']:.2f}")
        print(f"\nIn all: ${engine.ledger.get_usage_stats(days=7).total_cost_usd:.6f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("storage", nargs="?", help="folder of the index; none: a temporary one")
    parser.add_argument(
        "--model", default=os.environ.get("CLIP_MODEL", "clip-ViT-B-32"), help="CLIP: a name or a folder"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        main(options.storage or folder, options.model)
