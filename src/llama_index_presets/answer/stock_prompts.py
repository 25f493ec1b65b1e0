"""LlamaIndex's own prompts, read back: what its query and chat engines send to a language model. Pure.

A query engine sends passages and a question in one message, a chat engine sends the passages as the system's message.
Before that, a chat engine asks for the question of a conversation in one sentence; the mode ``refine`` asks once for
each passage and hands the answer so far along.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

__all__ = ["Refinement", "chat_prompt", "follow_up", "passages_of", "question_prompt", "refinement"]

_METADATA_LINE: Final = re.compile(r"([A-Za-z_][\w .-]{0,60}): \S")
# Each pattern reads a text once; what stands between two of them is cut out, since `.*` between several would read it
# again and again where documents repeat the words of a prompt.
_RULE: Final = re.compile(r"(?<!-)-{5,}\n")
_LAST_RULE: Final = re.compile(r"\n-{5,}(?=\n)")
_SYSTEM_CONTEXT: Final = re.compile(
    r"\AUse the context information below to assist the user\.\n-{5,}\n(.*)\n-{5,}\s*\Z", re.DOTALL
)
_DOCUMENTS: Final = re.compile(r"Here are the relevant documents for the context:[^\S\n]*\n")
_INSTRUCTION: Final = re.compile(r"\n[^\S\n]*Instruction: Based on the above documents")
_FOLLOW_UPS: Final = (
    ("Chat History:\n", re.compile(r"\n[^\S\n]*Follow Up Input: "), "Standalone question:"),
    ("<Chat History>\n", re.compile(r"\n[^\S\n]*<Follow Up Message>\n"), "<Standalone question>"),
)
_NEW_CONTEXT: Final = re.compile(r"^New Context: ", re.MULTILINE)
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
    context, question = _query_parts(prompt)
    blocks = [block.strip() for block in re.split(r"\n{2,}", context) if block.strip()]
    first = _first_key(blocks[0]) if len(blocks) > 1 else None
    if first is None:
        return blocks, question
    passages: list[list[str]] = []
    for block in blocks:
        if _first_key(block) == first:
            passages.append([block])
        else:
            passages[-1].append(block)
    return ["\n\n".join(passage) for passage in passages], question


def _query_parts(prompt: str) -> tuple[str, str]:
    """Context and question of a query engine's prompt; both empty when it is none."""
    asked = _before_end(prompt, "\nAnswer:")
    query = asked.rfind("\nQuery: ")
    first = _RULE.search(asked) if query >= 0 else None
    last = _last(_LAST_RULE, asked[: query + 1])
    if first is None or last is None or first.end() > last.start():
        return "", ""
    return asked[first.end() : last.start()], asked[query + len("\nQuery: ") :]


def _before_end(prompt: str, end: str) -> str:
    """A prompt without its last words; empty where it ends with others."""
    text = prompt.rstrip()
    return text.removesuffix(end) if text.endswith(end) else ""


def _last(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    return next(iter(deque(pattern.finditer(text), maxlen=1)), None)


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
        if context := _system_context(text):
            return question_prompt(context, users[-1])
    return users[-1]


def _system_context(text: str) -> str:
    if read := _SYSTEM_CONTEXT.search(text):
        return read[1].strip()
    head = _DOCUMENTS.search(text)
    documents = text[head.end() :] if head else ""
    end = _last(_INSTRUCTION, documents)
    return documents[: end.start()].strip() if end else ""


def follow_up(prompt: str) -> tuple[str, str] | None:
    """The question before and the message after it, where a prompt asks to make one question of a conversation.

    Example:
        >>> follow_up("Chat History:\\nuser: Who?\\nassistant: Ann.\\nFollow Up Input: When?\\nStandalone question:")
        ('Who?', 'When?')
    """
    for head, before_message, end in _FOLLOW_UPS:
        asked = _before_end(prompt, end)
        _, _, conversation = asked.partition(head)
        message = _last(before_message, conversation)
        if message:
            said = _SAID_BY_USER.split(conversation[: message.start()])
            previous = _SAID.split(said[-1])[0].strip() if len(said) > 1 else ""
            return previous, conversation[message.end() :].strip()
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
    asked = _before_end(prompt, "\nNew Answer:")
    answer = asked.rfind("\nOriginal Answer: ")
    query = asked.rfind("\nQuery: ", 0, max(answer, 0))
    context = _NEW_CONTEXT.search(asked)
    if context is None or query < context.end():
        return None
    question = asked[query + len("\nQuery: ") : answer]
    return Refinement(
        answer=asked[answer + len("\nOriginal Answer: ") :].strip(),
        prompt=question_prompt(asked[context.end() : query], question),
    )
