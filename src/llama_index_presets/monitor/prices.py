"""Prices of calls: Decimal dollars from dated price data, or None. Pure: no LlamaIndex, DuckDB, network.

Prices come from `genai-prices` (bundled in the package, never fetched), with the provider resolved first. A
`PriceBook` puts own contracts, local models and fine-tunes before them. An unknown model has no price: its
cost is None, and a warning names it once.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Decimal
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from llama_index_presets._addresses import is_loopback
from llama_index_presets.counting import counted
from llama_index_presets.errors import SettingsError
from llama_index_presets.files.toml_files import read_toml

__all__ = [
    "FREE_PROVIDER",
    "PriceBook",
    "Pricer",
    "Rates",
    "Tokens",
    "billed_searches",
    "context_window_of",
    "free_here",
    "how_to_price",
    "price_key",
]

FREE_PROVIDER: Final = "local"
"""Provider of models that run on this machine: they cost nothing."""

_STEP = Decimal("1e-12")
_MILLION = Decimal(1_000_000)
_ZERO = Decimal(0)
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Tokens:
    """What one call used, in tokens.

    Attributes:
        prompt: All input tokens; cached and cache-write ones included.
        completion: All output tokens; reasoning ones included.
        cached: Input tokens read from the provider's cache.
        cache_write: Input tokens written to the provider's cache.
        cache_write_1h: Those of `cache_write` that stay there for an hour.
        audio: Input tokens of sound; none of them cached.
        audio_out: Output tokens of sound.
        searches: Searches that a hosted reranker bills.
        tier: How the provider says that it served the call, such as ``"flex"``; empty is its standard.
    """

    prompt: int = 0
    completion: int = 0
    cached: int = 0
    cache_write: int = 0
    cache_write_1h: int = 0
    audio: int = 0
    audio_out: int = 0
    searches: int = 0
    tier: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Prices of one model, in USD per million tokens.

    Attributes:
        input: Fresh input tokens.
        output: Output tokens; reasoning tokens are output.
        cache_read: Input tokens read from the provider's cache; None means the input price.
        cache_write: Input tokens written to it; None means the input price.
        cache_write_1h: Those written for an hour; None means the price of `cache_write`.
        audio: Input tokens of sound; None means the input price.
        audio_out: Output tokens of sound; None means the output price.
        searches: USD per thousand searches of a reranker; None where no such price is known.
        requests: USD per thousand requests, beside the tokens.
        above: Prices that hold for *all* tokens of a call whose prompt is longer than the key, in tokens.
        version: Where the numbers came from; recorded with each row.

    Example:
        >>> Rates(input=Decimal("0.15"), output=Decimal("0.60"), version="mine").cost(Tokens(1000, 100))
        Decimal('0.000210000000')
    """

    input: Decimal
    output: Decimal = Decimal(0)
    cache_read: Decimal | None = None
    cache_write: Decimal | None = None
    cache_write_1h: Decimal | None = None
    audio: Decimal | None = None
    audio_out: Decimal | None = None
    searches: Decimal | None = None
    requests: Decimal = Decimal(0)
    above: tuple[tuple[int, Rates], ...] = ()
    version: str

    def cost(self, tokens: Tokens, calls: int = 1) -> Decimal:
        """Price a call, or several alike that used these tokens together, in USD, to 12 decimals (half even)."""
        rates = self.at(tokens.prompt // max(calls, 1))
        fresh = max(tokens.prompt - tokens.cached - tokens.cache_write, 0)
        total = fresh * rates.input + tokens.completion * rates.output
        if tokens.cached:
            total += tokens.cached * _or(rates.cache_read, rates.input)
        if tokens.cache_write:
            written = _or(rates.cache_write, rates.input)
            hour = min(tokens.cache_write_1h, tokens.cache_write)
            total += tokens.cache_write * written + hour * (_or(rates.cache_write_1h, written) - written)
        if tokens.audio:
            total += min(tokens.audio, fresh) * (_or(rates.audio, rates.input) - rates.input)
        if tokens.audio_out:
            sound = min(tokens.audio_out, tokens.completion)
            total += sound * (_or(rates.audio_out, rates.output) - rates.output)
        if tokens.searches or self.requests:
            total += 1000 * (tokens.searches * _or(self.searches, _ZERO) + calls * self.requests)
        return (total / _MILLION).quantize(_STEP, ROUND_HALF_EVEN)

    def covers(self, tokens: Tokens) -> bool:
        """Whether what is billed has a price: searches that come without tokens need one of their own."""
        return not tokens.searches or self.searches is not None or tokens.prompt > 0

    def at(self, prompt_tokens: int) -> Rates:
        """Give the rates that hold for a prompt of this length, in tokens."""
        found = self
        for start, rates in self.above:
            if prompt_tokens > start:
                found = rates
        return found


def _or(price: Decimal | None, otherwise: Decimal) -> Decimal:
    return otherwise if price is None else price


_FREE = Rates(input=Decimal(0), searches=Decimal(0), version=FREE_PROVIDER)


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceBook:
    """Own prices, looked up before the bundled ones.

    Attributes:
        version: Name of this book, recorded with each row it prices.
        rates: ``"provider/model"`` or ``"model"`` -> its rates. ``"provider/*"`` prices every other model of
            it.
        aliases: Model name -> the model whose price it has; a key that ends in ``*`` matches by prefix, so
            that fine-tunes map to their base.

    Example:
        >>> book = PriceBook(version="2026", aliases={"ft:gpt-4o-mini*": "gpt-4o-mini"})
        >>> book.resolve("ft:gpt-4o-mini:acme::x1")
        'gpt-4o-mini'
    """

    version: str = "price book"
    rates: dict[str, Rates] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> PriceBook:
        """Read a book from TOML.

        The file has ``version``, a table ``[aliases]``, and a table ``[models."provider/model"]`` each with
        ``input``, and optionally ``output``, ``cache_read``, ``cache_write``: USD per million tokens, as
        text or number; ``searches`` of a reranker: USD per thousand searches, alone or beside ``input``.

        Raises:
            SettingsError: The file is not TOML, or a key or number in it is wrong; all mistakes are listed.
        """
        try:
            raw = read_toml(Path(path))
        except (OSError, ValueError) as error:
            raise SettingsError(
                f"Price book '{path}' cannot be read: {error}. Expected a TOML file."
            ) from error
        return cls.parse(raw, str(path))

    @classmethod
    def parse(cls, raw: dict[str, Any], source: str = "price book") -> PriceBook:
        """Make a book from the parsed tables of a TOML file; see `load`."""
        version = str(raw.get("version", source))
        faults = [f"unknown key '{key}'" for key in raw if key not in {"version", "aliases", "models"}]
        rates: dict[str, Rates] = {}
        for model, prices in raw.get("models", {}).items():
            try:
                rates[model] = _rates_of(prices, version)
            except (ArithmeticError, KeyError, TypeError, ValueError) as error:
                faults.append(f"model '{model}': {error!r}")
        if faults:
            raise SettingsError(
                f"Price book '{source}' has {counted(len(faults), 'fault')}: {'; '.join(faults)}. "
                "Each model needs input (optionally output, cache_read, cache_write) USD per million tokens, or "
                "searches, USD per thousand."
            )
        return cls(version=version, rates=rates, aliases=dict(raw.get("aliases", {})))

    def resolve(self, model: str) -> str:
        """Follow the aliases of a model name, prefix patterns included."""
        if model in self.aliases:
            return self.aliases[model]
        for pattern, base in self.aliases.items():
            if pattern.endswith("*") and model.startswith(pattern[:-1]):
                return base
        return model

    def find(self, provider: str, model: str) -> Rates | None:
        """Give the book's own rates of a model, or None."""
        for key in (f"{provider}/{model}", model, f"{provider}/*"):
            if key in self.rates:
                return self.rates[key]
        return None


def _rates_of(prices: dict[str, Any], version: str) -> Rates:
    known = {"input", "output", "cache_read", "cache_write", "searches"}
    if unknown := sorted(set(prices) - known):
        raise ValueError(f"unknown keys {unknown}")
    numbers = {name: Decimal(str(value)) for name, value in prices.items()}
    if any(not number.is_finite() or number < 0 for number in numbers.values()):
        raise ValueError("prices must be finite and not negative")
    return Rates(
        version=version,
        input=numbers["input"] if "searches" not in numbers else numbers.get("input", _ZERO),
        output=numbers.get("output", Decimal(0)),
        cache_read=numbers.get("cache_read"),
        cache_write=numbers.get("cache_write"),
        searches=numbers.get("searches"),
    )


class Pricer:
    """Looks prices up once a model and hour, and multiplies. Thread safe.

    Args:
        book: Own prices, looked up first, or the path of their file.

    Example:
        >>> cost, version = Pricer().price("openai", "gpt-4o-mini", Tokens(1_000_000, 0, cached=800_000))
        >>> cost
        Decimal('0.090000000000')
        >>> Pricer().price("acme", "unheard-of", Tokens(10, 1))[0] is None
        True
    """

    def __init__(self, book: PriceBook | str | os.PathLike[str] | None = None) -> None:
        self.book = PriceBook.load(book) if isinstance(book, (str, os.PathLike)) else book or PriceBook()
        self._found: dict[tuple[str, str, str, int], Rates | None] = {}
        self._warned: set[tuple[str, str]] = set()
        self._lock = threading.Lock()

    def price(
        self, provider: str, model: str, tokens: Tokens, when: float | None = None, *, calls: int = 1
    ) -> tuple[Decimal | None, str]:
        """Price one call, or several alike.

        Args:
            provider: As `genai-prices` spells it, or ``"local"``; empty lets the model name decide.
            model: Model name.
            tokens: What the call used.
            when: When it was made, in seconds since 1970; None means now. Prices are dated.
            calls: How many calls used these tokens together; prices of long prompts go by the mean one.

        Returns:
            (USD or None when no price is known, version of the price).
        """
        rates = self.rates(provider, model, when, tier=tokens.tier)
        if rates is None or not rates.covers(tokens):
            return None, ""
        return rates.cost(tokens, calls), rates.version

    def rates(self, provider: str, model: str, when: float | None = None, *, tier: str = "") -> Rates | None:
        """Give the rates of a model at a time, or None; an unknown one is named in a warning, once.

        A price book's own rates hold at every tier; of a tier that the list does not know, the standard ones.
        """
        moment = datetime.now(UTC).timestamp() if when is None else when
        # Prices can change by the hour of the day, so an hour is the longest that a look-up may be kept.
        key = (provider, model, tier, int(moment // 3600))
        try:
            return self._found[key]
        except KeyError:
            rates = self._look_up(provider, model, moment, tier)
        with self._lock:
            if len(self._found) > 4096:
                self._found.clear()
            self._found[key] = rates
        self._warn_unpriced(provider, model, rates)
        return rates

    def knows(self, provider: str, model: str) -> bool:
        """Whether a model has a price now; asks without a warning."""
        return self._look_up(provider, model, datetime.now(UTC).timestamp()) is not None

    def _look_up(self, provider: str, model: str, moment: float, tier: str = "") -> Rates | None:
        if own := self.book.find(provider, model):
            return own
        base = self.book.resolve(model)
        if own := self.book.find(provider, base):
            return own
        return _FREE if provider == FREE_PROVIDER else self._bundled.rates(provider, base, moment, tier)

    def _warn_unpriced(self, provider: str, model: str, rates: Rates | None) -> None:
        if rates is None and (provider, model) not in self._warned:
            self._warned.add((provider, model))
            _log.warning(
                "No price is known for model '%s' of provider '%s': its calls are recorded as unpriced, "
                "not as free. %s",
                model,
                provider or "unknown",
                how_to_price([price_key(provider, model)]),
            )

    @cached_property
    def _bundled(self) -> _BundledPrices:
        return _BundledPrices()


_LISTED: Final = {
    "input": "input_mtok",
    "output": "output_mtok",
    "cache_read": "cache_read_mtok",
    "cache_write": "cache_write_mtok",
    "cache_write_1h": "cache_write_1h_mtok",
    "audio": "input_audio_mtok",
    "audio_out": "output_audio_mtok",
    "requests": "requests_kcount",
}
"""Field of `Rates` -> its name in the list."""


class _BundledPrices:
    """`genai-prices` as `Rates`; imported on first use, since its import takes 0.3 s."""

    def __init__(self) -> None:
        import genai_prices
        from genai_prices.data_snapshot import get_snapshot

        self.version = f"genai-prices {genai_prices.__version__}"
        self._snapshot = get_snapshot()

    def rates(self, provider: str, model: str, moment: float, tier: str = "") -> Rates | None:
        try:
            _, found = self._snapshot.find_provider_model(model, None, provider or None, None)
        except LookupError:
            return None
        asked = dict.fromkeys(("service_tier", "speed", "processing"), tier) if tier else None
        return self._convert(found.get_prices(datetime.fromtimestamp(moment, UTC), asked))

    def _convert(self, price: Any) -> Rates | None:
        found = {ours: getattr(price, theirs, None) for ours, theirs in _LISTED.items()}
        if found["input"] is None and found["output"] is None:
            return None
        starts = sorted({tier.start for value in found.values() for tier in getattr(value, "tiers", ())})
        above = tuple((start, self._flat(found, start + 1)) for start in starts)
        return self._flat(found, 0, above)

    def _flat(self, found: dict[str, Any], prompt: int, above: tuple[tuple[int, Rates], ...] = ()) -> Rates:
        flat: dict[str, Any] = {name: _at(value, prompt) for name, value in found.items()}
        for name in ("input", "output", "requests"):
            flat[name] = flat[name] or _ZERO
        return Rates(**flat, above=above, version=self.version)


def _at(value: Any, prompt: int) -> Decimal | None:
    """Pick the tier of a price: the last one whose start lies below the prompt's length."""
    if value is None or isinstance(value, Decimal):
        return value
    price: Decimal = value.base
    for tier in value.tiers:
        if prompt > tier.start:
            price = tier.price
    return price


def context_window_of(provider: str, model: str) -> int | None:
    """Context window of a model in tokens, from the list of prices; None where it is not known.

    Example:
        >>> context_window_of("openai", "gpt-4.1-mini")
        1000000
    """
    from genai_prices.data_snapshot import get_snapshot

    try:
        _, found = get_snapshot().find_provider_model(model, None, provider or None, None)
    except LookupError:
        return None
    window: int | None = found.context_window
    return window


_PIECE_TOKENS: Final = 500
_PIECES: Final = 100
"""Cohere's unit: a search bills up to so many texts, and a longer one counts as several."""


def billed_searches(pairs: Iterable[int]) -> int:
    """Searches that a hosted reranker bills for one question.

    Args:
        pairs: Tokens of each text together with the question.

    Example:
        >>> billed_searches([300] * 100), billed_searches([501] * 51)
        (1, 2)
    """
    pieces = sum(-(-pair // _PIECE_TOKENS) for pair in pairs)
    return -(-pieces // _PIECES)


def price_key(provider: str, model: str) -> str:
    """Name of a model in a price book.

    Example:
        >>> price_key("cohere", "rerank-v3.5"), price_key("", "qwen3")
        ('cohere/rerank-v3.5', 'qwen3')
    """
    return f"{provider}/{model}" if provider else model


def how_to_price(keys: Sequence[str]) -> str:
    """What to do about models without a price.

    Example:
        >>> how_to_price(["qwen3"])
        'Put [models."qwen3"] into a price book, and name its file in the setting prices, or in Ledger(prices=...).'
    """
    tables = ", ".join(f'[models."{key}"]' for key in keys)
    return (
        f"Put {tables} into a price book, and name its file in the setting prices, or in Ledger(prices=...)."
    )


def free_here(pricer: Pricer, model: str, address: str) -> bool:
    """Whether a model of a server costs nothing: it is on this machine, and no list of prices knows its name.

    A gateway on this machine passes the bill of a vendor's model on, so that such a model has its price there, too.

    Example:
        >>> [free_here(Pricer(), model, "http://127.0.0.1:8080/v1") for model in ("qwen3", "gpt-4o-mini")]
        [True, False]
    """
    known = pricer.knows("", model) or pricer.knows("openai", model)
    return bool(address) and not known and is_loopback(address)
