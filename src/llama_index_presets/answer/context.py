"""The numbered passages that an answer may cite, and the prompt that shows them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from llama_index.core.schema import ImageNode, MetadataMode, NodeWithScore

__all__ = [
    "DONT_KNOW",
    "IMAGE",
    "SYSTEM_PROMPT",
    "Block",
    "image_name",
    "number_blocks",
    "parse_prompt",
    "render_prompt",
]

DONT_KNOW = "I don't know."

IMAGE = "Image: "
"""How the heading of an image begins."""

SYSTEM_PROMPT = (
    "Answer the question from the numbered passages of the context, and from nothing else. "
    "After each statement, cite the passages that it comes from by their numbers, like [1] or [2][3]. "
    f'If the passages do not hold the answer, say exactly: "{DONT_KNOW}"'
)


@dataclass(frozen=True, slots=True)
class Block:
    """A numbered passage.

    Attributes:
        number: What ``[n]`` in an answer refers to; 1 is the most relevant passage.
        hit: The hit that it shows.
        text: Its text, as the prompt shows it.
        heading: Path of its headings, or empty; of an image, ``"Image: "`` and its name.
    """

    number: int
    hit: NodeWithScore
    text: str
    heading: str = ""

    def render(self) -> str:
        """The block as the prompt shows it."""
        return f"[{self.number}]{' ' + self.heading if self.heading else ''}\n{self.text}"


def number_blocks(hits: Sequence[NodeWithScore]) -> list[Block]:
    """Number hits from 1 in their order; a text that occurs twice is shown once, under its best hit."""
    unique: dict[str, NodeWithScore] = {}
    for hit in hits:
        text = " ".join(hit.node.get_content(MetadataMode.NONE).split())
        unique.setdefault(hit.node.node_id if isinstance(hit.node, ImageNode) else text, hit)
    return [
        Block(number, hit, hit.node.get_content(MetadataMode.NONE).strip(), _heading(hit))
        for number, hit in enumerate(unique.values(), start=1)
    ]


def _heading(hit: NodeWithScore) -> str:
    if isinstance(hit.node, ImageNode):
        return f"{IMAGE}{image_name(hit.node)}"
    return str(hit.node.metadata.get("heading") or "")


def image_name(node: ImageNode) -> str:
    """How an answer calls an image: its file name, in one line."""
    name = str(node.metadata.get("file_name") or Path(node.image_path or "").name or node.node_id)
    return " ".join(name.split())


def render_prompt(blocks: Sequence[Block], question: str) -> str:
    """The user's message: context, then question."""
    context = "\n\n".join(block.render() for block in blocks)
    return f"Context:\n\n{context}\n\nQuestion: {question}\nAnswer:"


def parse_prompt(prompt: str) -> tuple[list[tuple[int, str, str]], str]:
    """Read the passages and the question back out of a prompt.

    Understands `render_prompt` and LlamaIndex's own question-answering prompt, whose passages it numbers from 1.

    Returns:
        Passages as (number, heading, text), and the question; both empty when the prompt is of neither kind.

    Example:
        >>> parse_prompt("Context:\\n\\n[1] Head\\nText.\\n\\nQuestion: Why?\\nAnswer:")
        ([(1, 'Head', 'Text.')], 'Why?')
    """
    ours = re.search(r"^Context:\n\n(.*)\n\nQuestion: (.*)\nAnswer:\s*\Z", prompt, re.DOTALL | re.MULTILINE)
    if ours:
        parts = re.split(r"^\[(\d+)\](.*)\n", ours[1], flags=re.MULTILINE)
        triples = zip(parts[1::3], parts[2::3], parts[3::3], strict=True)
        return [(int(number), heading.strip(), text.strip()) for number, heading, text in triples], ours[2]
    stock = re.search(r"-{5,}\n(.*)\n-{5,}\n.*^Query: (.*)\nAnswer:\s*\Z", prompt, re.DOTALL | re.MULTILINE)
    if stock:
        texts = [text for text in re.split(r"\n{2,}", stock[1]) if text.strip()]
        return [(number, "", text.strip()) for number, text in enumerate(texts, start=1)], stock[2]
    return [], ""
