"""LlamaIndex's own prompts, read back: what its query and chat engines send to a language model. Pure.

A query engine sends passages and a question in one message, a chat engine sends the passages as the system's message.
Before that, a chat engine asks for the question of a conversation in one sentence; the mode ``refine`` asks once for
each passage and hands the answer so far along.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

__all__ = ["Refinement", "chat_prompt", "follow_up", "passages_of", "question_prompt", "refinement"]

_QUESTION: Final = re.compile(r"-{5,}\n(.*)\n-{5,}\n.*^Query: (.*)\nAnswer:\s*\Z", re.DOTALL | re.MULTILINE)
_METADATA_LINE: Final = re.compile(r"([A-Za-z_][\w .-]{0,60}): \S")
_SYSTEM_CONTEXTS: Final = (
    re.compile(
        r"\AUse the context information below to assist the user\.\n-{5,}\n(.*)\n-{5,}\s*\Z", re.DOTALL
    ),
    re.compile(
        r"Here are the relevant documents for the context:\s*\n(.*)\n\s*Instruction: Based on the above documents",
        re.DOTALL,
    ),
)
_FOLLOW_UPS: Final = (
    re.compile(r"Chat History:\n(.*)\n\s*Follow Up Input: (.*)\n\s*Standalone question:\s*\Z", re.DOTALL),
    re.compile(
        r"<Chat History>\n(.*)\n\s*<Follow Up Message>\n(.*)\n\s*<Standalone question>\s*\Z", re.DOTALL
    ),
)
_REFINEMENT: Final = re.compile(
    r"^New Context: (.*)\nQuery: (.*)\nOriginal Answer: (.*)\nNew Answer:\s*\Z", re.DOTALL | re.MULTILINE
)
_SAID_BY_USER: Final = re.compile(r"^user: ", re.MULTILINE)
_SAID: Final = re.compile(r"^(?:user|assistant|system|tool): ", re.MULTILINE)


def question_prompt(context: str, question: str) -> str:
    """The prompt of a query engine.

    Example:
        >>> question_prompt("Cats purr.", "What do cats do?").splitlines()[1]
        'Cats purr.'
    """
    return f"-----\n{context}\n-----\nQuery: {question}\nAnswer: "


def passages_of(prompt: str) -> tuple[list[str], str]:
    """Passages and question of a query engine's prompt; both empty when it is none.

    A node with metadata begins with it, so that the passages of a prompt with metadata are its nodes, whatever number
    of paragraphs they have. Without metadata nothing marks where a node begins, and each paragraph is a passage.

    Example:
        >>> passages_of(question_prompt("file: a\\n\\nCats purr.\\n\\nDogs bark.\\n\\nfile: b\\n\\nOwls hoot.", "Why?"))
        (['file: a\\n\\nCats purr.\\n\\nDogs bark.', 'file: b\\n\\nOwls hoot.'], 'Why?')
    """
    read = _QUESTION.search(prompt)
    if read is None:
        return [], ""
    blocks = [block.strip() for block in re.split(r"\n{2,}", read[1]) if block.strip()]
    first = _first_key(blocks[0]) if len(blocks) > 1 else None
    if first is None:
        return blocks, read[2]
    passages: list[list[str]] = []
    for block in blocks:
        if _first_key(block) == first:
            passages.append([block])
        else:
            passages[-1].append(block)
    return ["\n\n".join(passage) for passage in passages], read[2]


def _first_key(block: str) -> str | None:
    """The first key of a block that holds metadata alone: every line is a key and a value."""
    lines = [_METADATA_LINE.match(line) for line in block.splitlines()]
    return lines[0][1] if lines and all(lines) and lines[0] else None


def chat_prompt(messages: Sequence[tuple[str, str]]) -> str:
    """What a chat asks, as one prompt: the user's last message, with the passages of the system's, if there are any.

    Args:
        messages: (role, text), in order.

    Example:
        >>> system = "Use the context information below to assist the user.\\n-----\\nCats purr.\\n-----\\n"
        >>> passages_of(chat_prompt([("system", system), ("user", "What do cats do?")]))
        (['Cats purr.'], 'What do cats do?')
    """
    users = [text for role, text in messages if role == "user"]
    if not users:
        return ""
    for role, text in messages:
        if role != "system":
            continue
        for pattern in _SYSTEM_CONTEXTS:
            if read := pattern.search(text):
                return question_prompt(read[1].strip(), users[-1])
    return users[-1]


def follow_up(prompt: str) -> tuple[str, str] | None:
    """The question before and the message after it, where a prompt asks to make one question of a conversation.

    Example:
        >>> follow_up("Chat History:\\nuser: Who?\\nassistant: Ann.\\nFollow Up Input: When?\\nStandalone question:")
        ('Who?', 'When?')
    """
    for pattern in _FOLLOW_UPS:
        if read := pattern.search(prompt):
            said = _SAID_BY_USER.split(read[1])
            previous = _SAID.split(said[-1])[0].strip() if len(said) > 1 else ""
            return previous, read[2].strip()
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Refinement:
    """A prompt of the mode ``refine``: the answer so far, and the prompt that asks the next passages alone."""

    answer: str
    prompt: str


def refinement(prompt: str) -> Refinement | None:
    """The parts of a prompt that asks to refine an answer; None when it is none.

    Example:
        >>> refinement("New Context: Cats purr.\\nQuery: Why?\\nOriginal Answer: So.\\nNew Answer: ").answer
        'So.'
    """
    read = _REFINEMENT.search(prompt)
    return read and Refinement(answer=read[3].strip(), prompt=question_prompt(read[1], read[2]))
