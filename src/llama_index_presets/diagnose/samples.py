"""Two short documents and a question about them, for checks without documents of the user's."""

from __future__ import annotations

from pathlib import Path
from typing import Final

__all__ = ["SAMPLE_QUESTION", "write_samples"]

SAMPLE_QUESTION: Final = "How is botulism treated?"
_DOCUMENTS: Final = {
    "botulism.md": "# Botulism\n\n## Treatment\n\nBotulism is treated with an antitoxin, as early as possible.\n",
    "insulin.md": "# Insulin\n\n## Storage\n\nAn insulin pen in use is kept at room temperature for 28 days.\n",
}


def write_samples(folder: Path) -> Path:
    """Write the documents into a new folder, ``documents``, below this one, and give it."""
    documents = folder / "documents"
    documents.mkdir()
    for name, text in _DOCUMENTS.items():
        (documents / name).write_text(text, encoding="utf-8")
    return documents
