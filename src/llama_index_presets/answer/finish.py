"""Finish reasons of language models, in one vocabulary for every provider. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, Final

from llama_index.core.base.llms.types import ChatResponse

__all__ = ["cut_off", "finish_reason", "no_answer"]

_MEANINGS: Final = {
    "stop": ("stop", "end_turn", "stop_sequence", "complete", "completed", "eos_token", "finish_reason_stop"),
    "length": (
        "length", "max_tokens", "max_output_tokens", "max_length", "model_length",
        "model_context_window_exceeded", "finish_reason_max_tokens",
    ),
    "content_filter": (
        "content_filter", "content_filtered", "safety", "refusal", "recitation", "blocklist",
        "prohibited_content", "spii", "image_safety", "guardrail_intervened", "error_toxic",
    ),
    "tool_calls": ("tool_calls", "tool_call", "tool_use", "function_call"),
}  # fmt: skip
_NORMAL: Final = {word: meaning for meaning, words in _MEANINGS.items() for word in words}
_GEMINI_NUMBERS: Final = {1: "stop", 2: "length", 3: "content_filter", 4: "content_filter"}

_PLACES: Final = (
    ("choices", 0, "finish_reason"),  # OpenAI, Mistral and all that copy them
    ("candidates", 0, "finish_reason"),  # Gemini
    ("candidates", 0, "finishReason"),
    ("finish_reason",),  # Cohere, Gemini's candidate alone, additional_kwargs
    ("finishReason",),
    ("stop_reason",),  # Anthropic
    ("delta", "stop_reason"),  # its streams
    ("stopReason",),  # Bedrock
    ("messageStop", "stopReason"),  # its streams
    ("done_reason",),  # Ollama
    ("incomplete_details", "reason"),  # OpenAI's Responses
    ("response", "incomplete_details", "reason"),  # its streams
)
_REFUSAL: Final = ("choices", 0, "message", "refusal")

_WHY: Final = {
    "length": "its limit of output tokens was used up, perhaps by reasoning; raise the model's max_tokens",
    "content_filter": "the model or its provider held the answer back",
    "tool_calls": "it asked for a tool, and there is none here",
}


def finish_reason(response: ChatResponse) -> str | None:
    """Normalised finish reason: ``"stop"``, ``"length"``, ``"content_filter"``, ``"tool_calls"``.

    A reason that is none of these is given in the provider's own word, in lower case.

    Args:
        response: A response, or one piece of a stream: only one of the last has a reason.

    Returns:
        The reason; None where the response has none.

    Example:
        >>> from llama_index.core.base.llms.types import ChatMessage
        >>> finish_reason(ChatResponse(message=ChatMessage(content="a"), raw={"stop_reason": "max_tokens"}))
        'length'
    """
    if _at(response.raw, _REFUSAL):
        return "content_filter"
    for carrier in (response.raw, response.additional_kwargs, response.message.additional_kwargs):
        for place in _PLACES:
            if (reason := _normal(_at(carrier, place))) is not None:
                return reason
    return None


def cut_off(reason: str | None) -> str:
    """Sentence for the user when an answer is incomplete; empty when it is complete.

    Example:
        >>> cut_off("stop"), cut_off("length").startswith("The answer was cut off")
        ('', True)
    """
    if reason not in ("length", "content_filter"):
        return ""
    return f"The answer was cut off (finish_reason '{reason}'): {_WHY[reason]}."


def no_answer(reason: str | None, *, only_markers: bool = False) -> str:
    """Sentence in parentheses for the user when the model returned no text.

    Args:
        reason: See `finish_reason`.
        only_markers: Whether the model wrote citations of passages that do not exist, and nothing else.

    Example:
        >>> no_answer("stop")
        "(The language model wrote no answer; finish_reason 'stop'.)"
    """
    what = "cited passages that do not exist, and wrote nothing else" if only_markers else "wrote no answer"
    named = "no finish_reason" if reason is None else f"finish_reason '{reason}'"
    why = f": {_WHY[reason]}" if reason in _WHY else ""
    return f"(The language model {what}; {named}{why}.)"


def _at(carrier: Any, place: Sequence[str | int]) -> Any:
    """Value at a path through mappings, sequences and objects; None where the path ends."""
    for step in place:
        if isinstance(step, int):
            carrier = carrier[step] if isinstance(carrier, Sequence) and len(carrier) > step else None
        elif isinstance(carrier, Mapping):
            carrier = carrier.get(step)
        else:
            carrier = getattr(carrier, step, None)
    return carrier


def _normal(reason: Any) -> str | None:
    if isinstance(reason, Enum):
        reason = reason.name
    if isinstance(reason, int):
        return _GEMINI_NUMBERS.get(reason)
    if not isinstance(reason, str) or not reason:
        return None
    return _NORMAL.get(reason.lower(), reason.lower())
