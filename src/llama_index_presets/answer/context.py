"""Prompt context: the numbered passages that an answer may cite."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llama_index.core.prompts import BasePromptTemplate
from llama_index.core.schema import ImageNode, MetadataMode, NodeWithScore

from llama_index_presets.errors import AnswerError, SettingsError
from llama_index_presets.sentences import split_sentences

__all__ = [
    "DONT_KNOW",
    "IMAGE",
    "QUESTION_PROMPT",
    "SYSTEM_PROMPT",
    "Block",
    "check_template",
    "closest",
    "closest_images",
    "fit",
    "image_facts",
    "image_name",
    "number_blocks",
    "parse_prompt",
    "render_context",
    "render_prompt",
]

# Keep the context within a token budget: whole passages, whole sentences. Pure.


def fit(
    texts: Sequence[str],
    budget_tokens: int,
    *,
    count: Callable[[str], int],
    sentences: Callable[[str], Sequence[str]],
) -> list[str]:
    """Keep the most relevant passages that fit together.

    The least relevant passage is dropped first. When even the best one alone is too long, its first sentences
    that fit are kept; a sentence is never cut.

    Args:
        texts: Passages, most relevant first.
        budget_tokens: Upper bound of their tokens together.
        count: Tokens of a text. It is not called where the texts have fewer bytes than the budget has tokens,
            since no token is shorter than a byte.
        sentences: Cuts a text into sentences that keep the white space behind them.

    Returns:
        The first texts, as many as fit; the last may be shortened when it is the only one.

    Raises:
        AnswerError: Not even one sentence fits.

    Example:
        >>> fit(["a b", "c d", "e f"], 5, count=lambda text: len(text.split()), sentences=lambda text: [text])
        ['a b', 'c d']
    """
    if sum(len(text.encode()) for text in texts) <= budget_tokens:
        return list(texts)
    kept, used = [], 0
    for text in texts:
        used += count(text)
        if used > budget_tokens:
            break
        kept.append(text)
    if kept or not texts:
        return kept
    return [_first_sentences(texts[0], budget_tokens, count, sentences)]


def _first_sentences(
    text: str, budget_tokens: int, count: Callable[[str], int], sentences: Callable[[str], Sequence[str]]
) -> str:
    kept = ""
    for sentence in sentences(text):
        if count(kept + sentence) > budget_tokens:
            break
        kept += sentence
    if not kept.strip():
        raise AnswerError(
            f"The token budget of {budget_tokens} does not hold one sentence of the best passage. Raise context_tokens."
        )
    return kept.strip()


DONT_KNOW = "I don't know."

IMAGE = "Image: "
"""How the heading of an image begins."""

SYSTEM_PROMPT = (
    "Answer the question from the numbered passages of the context, and from nothing else. "
    "After each statement, cite the passages that it comes from by their numbers, like [1] or [2][3]. "
    f'If the passages do not hold the answer, say exactly: "{DONT_KNOW}"'
)

QUESTION_PROMPT = "Context:\n\n{context_str}\n\nQuestion: {query_str}\nAnswer:"


def check_template(name: str, template: Any, variables: Sequence[str]) -> BasePromptTemplate:
    """Check a prompt that a user brings along.

    Args:
        name: Its key, for the message.
        template: What the user gave.
        variables: Names that it must use; a ``template_var_mappings`` of the template counts.

    Raises:
        SettingsError: It is no template, or one of the variables is missing.

    Example:
        >>> from llama_index.core import PromptTemplate
        >>> check_template("text_qa_template", PromptTemplate("{query_str}"), ["context_str", "query_str"])
        Traceback (most recent call last):
        llama_index_presets.errors.SettingsError: The prompt 'text_qa_template' lacks {context_str}; it has ...
    """
    if not isinstance(template, BasePromptTemplate):
        raise SettingsError(
            f"The prompt '{name}' is of type {type(template).__name__}. Give a template of LlamaIndex, such as "
            "PromptTemplate(text)."
        )
    own_names = template.template_var_mappings or {}
    missing = [
        variable for variable in variables if own_names.get(variable, variable) not in template.template_vars
    ]
    if missing:
        raise SettingsError(
            f"The prompt '{name}' lacks {_braced(missing)}; it has {_braced(template.template_vars) or 'none'}. "
            f"Write each of {_braced(variables)} where its text belongs."
        )
    return template


def _braced(names: Sequence[str]) -> str:
    return ", ".join(f"{{{name}}}" for name in dict.fromkeys(names))


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
    """File name of an image, in one line, as answers cite it."""
    name = str(node.metadata.get("file_name") or Path(node.image_path or "").name or node.node_id)
    return " ".join(name.split())


def render_prompt(blocks: Sequence[Block], question: str) -> str:
    """The user's message: context, then question."""
    return QUESTION_PROMPT.format(context_str=render_context(blocks), query_str=question)


def render_context(blocks: Sequence[Block]) -> str:
    """The numbered passages, as a prompt shows them."""
    return "\n\n".join(block.render() for block in blocks)


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


# What an answer says of images: which ones are closest, and where they lie. Nothing is said about what they show.


def closest_images(images: Sequence[tuple[int, str]]) -> str:
    """Names of the images among hits, best first.

    Args:
        images: Number and heading of each.

    Example:
        >>> closest_images([(1, "Image: red.png"), (3, "Image: blue.png")])
        'Closest images: red.png [1], blue.png [3].'
    """
    named = [f"{heading.removeprefix(IMAGE)} [{number}]" for number, heading in images]
    return f"Closest images: {', '.join(named)}." if named else ""


def closest(blocks: Sequence[Block]) -> str:
    """Text about the hits of an image query: images by name, passages by their first sentence."""
    images = [(block.number, block.heading) for block in blocks if block.heading.startswith(IMAGE)]
    quotes = [
        f"{' '.join(split_sentences(block.text)[0].split())} [{block.number}]"
        for block in blocks
        if not block.heading.startswith(IMAGE) and block.text
    ]
    texts = f"Closest passages: {' '.join(quotes)}" if quotes else ""
    return " ".join(part for part in (closest_images(images), texts) if part) or DONT_KNOW


def image_facts(node: ImageNode) -> dict[str, Any]:
    """Facts by which an application shows an image: its path, or None where the node holds the bytes."""
    metadata = node.metadata
    return {
        "path": node.image_path,
        "format": metadata.get("image_format"),
        "width": metadata.get("image_width"),
        "height": metadata.get("image_height"),
    }
