"""What an answer says of images: which ones are closest, and where they lie. Nothing is said about what they show."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llama_index.core.schema import ImageNode

from llama_index_presets.answer.context import DONT_KNOW, IMAGE, Block
from llama_index_presets.sentences import split_sentences

__all__ = ["closest", "closest_images", "image_facts"]


def closest_images(images: Sequence[tuple[int, str]]) -> str:
    """Name images, best first.

    Args:
        images: Number and heading of each.

    Example:
        >>> closest_images([(1, "Image: red.png"), (3, "Image: blue.png")])
        'Closest images: red.png [1], blue.png [3].'
    """
    named = [f"{heading.removeprefix(IMAGE)} [{number}]" for number, heading in images]
    return f"Closest images: {', '.join(named)}." if named else ""


def closest(blocks: Sequence[Block]) -> str:
    """What is like an image that was asked with: images by name, passages by their first sentence."""
    images = [(block.number, block.heading) for block in blocks if block.heading.startswith(IMAGE)]
    quotes = [
        f"{' '.join(split_sentences(block.text)[0].split())} [{block.number}]"
        for block in blocks
        if not block.heading.startswith(IMAGE) and block.text
    ]
    texts = f"Closest passages: {' '.join(quotes)}" if quotes else ""
    return " ".join(part for part in (closest_images(images), texts) if part) or DONT_KNOW


def image_facts(node: ImageNode) -> dict[str, Any]:
    """What an application needs to show an image: its path, or None where the node holds the bytes itself."""
    metadata = node.metadata
    return {
        "path": node.image_path,
        "format": metadata.get("image_format"),
        "width": metadata.get("image_width"),
        "height": metadata.get("image_height"),
    }
