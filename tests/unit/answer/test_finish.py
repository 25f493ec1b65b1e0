"""Why a model stopped, read from what each provider sends; and what becomes of an answer without text."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from llama_index.core.base.llms.types import ChatMessage, ChatResponse

from llama_index_presets.answer.citations import MarkerFilter
from llama_index_presets.answer.cited_answer import CitedAnswer
from llama_index_presets.answer.context import DONT_KNOW
from llama_index_presets.answer.finish import cut_off, finish_reason


def openai_choice(reason: str | None, **message: Any) -> SimpleNamespace:
    return SimpleNamespace(
        choices=[SimpleNamespace(finish_reason=reason, message=SimpleNamespace(**message))]
    )


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (openai_choice("length"), "length"),
        ({"choices": [{"finish_reason": "stop", "message": {"refusal": None}}]}, "stop"),
        (openai_choice("stop", refusal="I cannot help with that."), "content_filter"),
        (openai_choice(None), None),
        ({"choices": []}, None),
        ({"stop_reason": "max_tokens"}, "length"),
        ({"type": "message_delta", "delta": {"stop_reason": "end_turn"}}, "stop"),
        ({"stop_reason": "refusal"}, "content_filter"),
        ({"finish_reason": "MAX_TOKENS"}, "length"),
        ({"candidates": [{"finishReason": "SAFETY"}]}, "content_filter"),
        ({"candidates": [{"finish_reason": 2}]}, "length"),
        ({"done": True, "done_reason": "length"}, "length"),
        ({"stopReason": "guardrail_intervened"}, "content_filter"),
        ({"messageStop": {"stopReason": "end_turn"}}, "stop"),
        (SimpleNamespace(incomplete_details=SimpleNamespace(reason="max_output_tokens")), "length"),
        ({"finish_reason": "Paused"}, "paused"),
        (None, None),
        ("text", None),
    ],
)  # fmt: skip
def test_every_provider_says_it_in_its_own_place(raw: Any, reason: str | None) -> None:
    """One word for each meaning; an unknown one is handed on."""
    assert finish_reason(ChatResponse(message=ChatMessage(content="a"), raw=raw)) == reason


@pytest.mark.parametrize("holder", ["response", "message"])
def test_additional_kwargs_may_hold_it(holder: str) -> None:
    """Adapters that keep no raw response put the reason there."""
    kwargs = {"finish_reason": "length"}
    message = ChatMessage(content="a", additional_kwargs=kwargs if holder == "message" else {})
    response = ChatResponse(message=message, additional_kwargs=kwargs if holder == "response" else {})
    assert finish_reason(response) == "length"


def test_an_answer_of_invented_markers_alone_says_so() -> None:
    """Nothing is left of it, and the reader learns why."""
    answer = CitedAnswer(markers=MarkerFilter(2), finish_reason="stop")
    said = answer.take("[7] [8]", last=True)
    assert said == answer.text and said.startswith(
        f"{DONT_KNOW} (The language model cited passages that do not"
    )
    assert not answer.known and [citation["n"] for citation in answer.citations()] == [7, 8]


@pytest.mark.parametrize("reason", [None, "stop", "tool_calls"])
def test_a_whole_answer_is_not_called_cut_off(reason: str | None) -> None:
    """Only the limit and the filter cut."""
    assert cut_off(reason) == ""
