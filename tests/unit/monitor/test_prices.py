"""Prices: ours against genai-prices for every model it knows, own books, and unknown models."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from genai_prices import Usage, calc_price
from genai_prices.data_snapshot import get_snapshot
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_index_presets.errors import SettingsError
from llama_index_presets.monitor.prices import PriceBook, Pricer, Rates, Tokens

PRICER = Pricer()
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
MODELS = [
    (provider.id, model.id)
    for provider in get_snapshot().providers
    for model in provider.models
    if provider.id in ("openai", "anthropic", "google", "mistral", "cohere", "voyageai", "deepseek", "groq")
]


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from(MODELS),
    st.integers(0, 300_000),
    st.integers(0, 20_000),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_our_cost_is_that_of_the_price_list(model, prompt, completion, cached_share, written_share):
    """For any model and usage the cost equals genai-prices' own calculation, tiers and caches included."""
    cached = int(prompt * cached_share)
    written = int((prompt - cached) * written_share)
    cost, _ = PRICER.price(*model, Tokens(prompt, completion, cached, written), NOW.timestamp())
    usage = Usage(
        input_tokens=prompt, output_tokens=completion, cache_read_tokens=cached, cache_write_tokens=written
    )
    try:
        truth = calc_price(usage, model[1], provider_id=model[0], genai_request_timestamp=NOW).total_price
    except (LookupError, ValueError):  # the list cannot find its own id, or price this usage
        return
    if cost is not None:
        assert abs(cost - truth) < Decimal("1e-11")


@pytest.mark.parametrize(
    ("model", "per_million"),
    [
        ("text-embedding-3-small", "0.02"),
        ("text-embedding-3-large", "0.13"),
        ("text-embedding-ada-002", "0.10"),
    ],
)
def test_the_embedding_models_of_the_matrix_are_priced(model, per_million):
    """A million tokens cost what OpenAI's list says."""
    assert PRICER.price("openai", model, Tokens(1_000_000))[0] == Decimal(per_million)


def test_local_models_are_free_and_say_so():
    """A model on this machine costs 0, and the price's version names the reason."""
    assert PRICER.price("local", "all-MiniLM-L6-v2", Tokens(10**9)) == (Decimal(0), "local")


def test_an_unknown_model_has_no_price_and_never_a_default():
    """Neither 0 nor a guess: None."""
    assert PRICER.price("openai", "gpt-99-ultra", Tokens(1)) == (None, "")


def test_the_version_of_the_price_is_told():
    """Each priced row can say which list it was priced with."""
    assert PRICER.price("openai", "gpt-4o-mini", Tokens(1))[1].startswith("genai-prices ")


BOOK = """
version = "acme contract 2026"
[aliases]
"ft:gpt-4o-mini*" = "gpt-4o-mini"
[models."openai/gpt-4o-mini"]
input = "0.10"
output = 0.40
[models."vllm/*"]
input = 0
"""


def test_a_book_comes_before_the_list(tmp_path):
    """Own contract prices win, aliases follow, a provider can be priced as a whole, and the version is told."""
    (tmp_path / "prices.toml").write_text(BOOK)
    pricer = Pricer(PriceBook.load(tmp_path / "prices.toml"))
    tokens = Tokens(1_000_000, 1_000_000)
    assert pricer.price("openai", "gpt-4o-mini", tokens) == (Decimal("0.50"), "acme contract 2026")
    assert pricer.price("openai", "ft:gpt-4o-mini:acme::1", tokens)[0] == Decimal("0.50")
    assert pricer.price("vllm", "anything", tokens)[0] == 0
    assert pricer.price("openai", "gpt-4.1", tokens)[0] == 10


def test_all_faults_of_a_book_are_listed(tmp_path):
    """A book with two mistakes names both, and what was expected."""
    (tmp_path / "prices.toml").write_text("colour = 1\n[models.a]\ninput = -1\n[models.b]\noutput = 1\n")
    with pytest.raises(SettingsError, match=r"3 faults: unknown key 'colour'; model 'a'.*; model 'b'"):
        PriceBook.load(tmp_path / "prices.toml")


def test_a_long_prompt_is_priced_at_its_tier():
    """Above the tier's start all tokens cost the tier's price."""
    rates = Rates(input=Decimal(3), version="v", above=((200_000, Rates(input=Decimal(6), version="v")),))
    assert rates.cost(Tokens(200_000)) == Decimal("0.6")
    assert rates.cost(Tokens(200_001)) == 200_001 * Decimal(6) / 1_000_000


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from(MODELS),
    st.integers(0, 300_000),
    st.integers(0, 20_000),
    st.tuples(st.floats(0, 0.5), st.floats(0, 1), st.floats(0, 0.5), st.floats(0, 1)),
    st.sampled_from(["", "flex", "priority", "fast", "batch"]),
)
def test_what_else_is_billed_costs_what_the_list_says(model, prompt, completion, shares, tier):
    """Writes to a cache for an hour, sound, prices a request and prices of a tier; they were priced as plain tokens."""
    written = int(prompt * shares[0])
    hour, sound = int(written * shares[1]), int(prompt * shares[2])
    tokens = Tokens(prompt, completion, 0, written, hour, sound, int(completion * shares[3]), tier=tier)
    cost, _ = PRICER.price(*model, tokens, NOW.timestamp())
    usage = Usage(
        input_tokens=prompt, output_tokens=completion, cache_write_tokens=written, cache_write_1h_tokens=hour,
        input_audio_tokens=sound, output_audio_tokens=tokens.audio_out,
    )  # fmt: skip
    asked = dict.fromkeys(("service_tier", "speed", "processing"), tier) if tier else None
    try:
        provider, found = get_snapshot().find_provider_model(model[1], None, model[0], None)
        truth = found.calc_price(
            usage, provider, genai_request_timestamp=NOW, price_context=asked
        ).total_price
    except (LookupError, ValueError):  # the list cannot find its own id, or price this usage
        return
    if cost is not None:
        assert abs(cost - truth) < Decimal("1e-11")


def test_a_search_has_a_price_of_its_own_or_none(tmp_path):
    """USD per thousand; a price of tokens does not make it free."""
    (tmp_path / "prices.toml").write_text('[models.one]\nsearches = "2.00"\n[models.two]\ninput = 1\n')
    pricer = Pricer(tmp_path / "prices.toml")
    assert pricer.price("", "one", Tokens(searches=3))[0] == Decimal("0.006")
    assert pricer.price("", "two", Tokens(searches=3)) == (None, "")
    assert pricer.price("local", "three", Tokens(searches=3))[0] == 0


def test_many_short_prompts_are_not_one_long_one():
    """An estimate of many calls was priced at the tier of a prompt as long as all of them."""
    short, long = (PRICER.price("google", "gemini-2.5-pro", Tokens(size))[0] for size in (100_000, 400_000))
    assert long > 4 * short
    assert PRICER.price("google", "gemini-2.5-pro", Tokens(400_000), calls=4)[0] == 4 * short


def test_a_price_a_request_is_added_to_that_of_the_tokens():
    """Perplexity's is most of its bill: 13 of 14 dollars a thousand short questions were missing."""
    truth = calc_price(Usage(input_tokens=1000, output_tokens=100), "sonar", provider_id="perplexity")
    assert PRICER.price("perplexity", "sonar", Tokens(1000, 100))[0] == truth.total_price
    assert truth.total_price > 10 * Decimal("0.0011")
