"""Prices of calls: Decimal dollars from dated price data, or None. Pure: no LlamaIndex, DuckDB, network.

Prices come from `genai-prices` (bundled in the package, never fetched), with the provider resolved first. A
`PriceBook` puts own contracts, local models and fine-tunes before them. An unknown model has no price: its
cost is None, and a warning names it once.
"""

from __future__ import annotations

import logging
import threading
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

__all__ = ["FREE_PROVIDER", "PriceBook", "Pricer", "Rates", "Tokens", "context_window_of", "free_here"]

FREE_PROVIDER: Final = "local"
"""Provider of models that run on this machine: they cost nothing."""

_STEP = Decimal("1e-12")
_MILLION = Decimal(1_000_000)
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Tokens:
    """What one call used, in tokens.

    Attributes:
        prompt: All input tokens; cached and cache-write ones included.
        completion: All output tokens; reasoning ones included.
        cached: Input tokens read from the provider's cache.
        cache_write: Input tokens written to the provider's cache.
    """

    prompt: int = 0
    completion: int = 0
    cached: int = 0
    cache_write: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Prices of one model, in USD per million tokens.

    Attributes:
        input: Fresh input tokens.
        output: Output tokens; reasoning tokens are output.
        cache_read: Input tokens read from the provider's cache; None means the input price.
        cache_write: Input tokens written to it; None means the input price.
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
    above: tuple[tuple[int, Rates], ...] = ()
    version: str

    def cost(self, tokens: Tokens) -> Decimal:
        """Price one call, in USD, to 12 decimals (half even)."""
        rates = self.at(tokens.prompt)
        cached = rates.input if rates.cache_read is None else rates.cache_read
        written = rates.input if rates.cache_write is None else rates.cache_write
        fresh = max(tokens.prompt - tokens.cached - tokens.cache_write, 0)
        total = fresh * rates.input + tokens.completion * rates.output
        if tokens.cached:
            total += tokens.cached * cached
        if tokens.cache_write:
            total += tokens.cache_write * written
        return (total / _MILLION).quantize(_STEP, ROUND_HALF_EVEN)

    def at(self, prompt_tokens: int) -> Rates:
        """Give the rates that hold for a prompt of this length, in tokens."""
        found = self
        for start, rates in self.above:
            if prompt_tokens > start:
                found = rates
        return found


_FREE = Rates(input=Decimal(0), version=FREE_PROVIDER)


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
    def load(cls, path: str | Path) -> PriceBook:
        """Read a book from TOML.

        The file has ``version``, a table ``[aliases]``, and a table ``[models."provider/model"]`` each with
        ``input``, and optionally ``output``, ``cache_read``, ``cache_write``: USD per million tokens, as
        text or number.

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
                "Each model needs input (optionally output, cache_read, cache_write) USD per million tokens."
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
    known = {"input", "output", "cache_read", "cache_write"}
    if unknown := sorted(set(prices) - known):
        raise ValueError(f"unknown keys {unknown}")
    numbers = {name: Decimal(str(value)) for name, value in prices.items()}
    if any(not number.is_finite() or number < 0 for number in numbers.values()):
        raise ValueError("prices must be finite and not negative")
    return Rates(
        version=version,
        input=numbers["input"],
        output=numbers.get("output", Decimal(0)),
        cache_read=numbers.get("cache_read"),
        cache_write=numbers.get("cache_write"),
    )


class Pricer:
    """Looks prices up once a model and hour, and multiplies. Thread safe.

    Args:
        book: Own prices, looked up first.

    Example:
        >>> cost, version = Pricer().price("openai", "gpt-4o-mini", Tokens(1_000_000, 0, cached=800_000))
        >>> cost
        Decimal('0.090000000000')
        >>> Pricer().price("acme", "unheard-of", Tokens(10, 1))[0] is None
        True
    """

    def __init__(self, book: PriceBook | None = None) -> None:
        self.book = book or PriceBook()
        self._found: dict[tuple[str, str, int], Rates | None] = {}
        self._warned: set[tuple[str, str]] = set()
        self._lock = threading.Lock()

    def price(
        self, provider: str, model: str, tokens: Tokens, when: float | None = None
    ) -> tuple[Decimal | None, str]:
        """Price one call.

        Args:
            provider: As `genai-prices` spells it, or ``"local"``; empty lets the model name decide.
            model: Model name.
            tokens: What the call used.
            when: When it was made, in seconds since 1970; None means now. Prices are dated.

        Returns:
            (USD or None when no price is known, version of the price).
        """
        rates = self.rates(provider, model, when)
        return (None, "") if rates is None else (rates.cost(tokens), rates.version)

    def rates(self, provider: str, model: str, when: float | None = None) -> Rates | None:
        """Give the rates of a model at a time, or None; an unknown one is named in a warning, once."""
        moment = datetime.now(UTC).timestamp() if when is None else when
        # Prices can change by the hour of the day, so an hour is the longest that a look-up may be kept.
        key = (provider, model, int(moment // 3600))
        if key not in self._found:
            rates = self._look_up(provider, model, moment)
            with self._lock:
                if len(self._found) > 4096:
                    self._found.clear()
                self._found[key] = rates
            self._warn_unpriced(provider, model, rates)
        return self._found[key]

    def knows(self, provider: str, model: str) -> bool:
        """Whether a model has a price now; asks without a warning."""
        return self._look_up(provider, model, datetime.now(UTC).timestamp()) is not None

    def _look_up(self, provider: str, model: str, moment: float) -> Rates | None:
        if own := self.book.find(provider, model):
            return own
        base = self.book.resolve(model)
        if own := self.book.find(provider, base):
            return own
        return _FREE if provider == FREE_PROVIDER else self._bundled.rates(provider, base, moment)

    def _warn_unpriced(self, provider: str, model: str, rates: Rates | None) -> None:
        if rates is None and (provider, model) not in self._warned:
            self._warned.add((provider, model))
            _log.warning(
                "No price is known for model '%s' of provider '%s': its calls are recorded as unpriced, "
                "not as free. Add it to a PriceBook.",
                model,
                provider or "unknown",
            )

    @cached_property
    def _bundled(self) -> _BundledPrices:
        return _BundledPrices()


class _BundledPrices:
    """`genai-prices` as `Rates`; imported on first use, since its import takes 0.3 s."""

    def __init__(self) -> None:
        import genai_prices
        from genai_prices.data_snapshot import get_snapshot

        self.version = f"genai-prices {genai_prices.__version__}"
        self._snapshot = get_snapshot()

    def rates(self, provider: str, model: str, moment: float) -> Rates | None:
        try:
            _, found = self._snapshot.find_provider_model(model, None, provider or None, None)
        except LookupError:
            return None
        return self._convert(found.get_prices(datetime.fromtimestamp(moment, UTC)))

    def _convert(self, price: Any) -> Rates | None:
        names = {"input": "input_mtok", "output": "output_mtok"}
        names |= {"cache_read": "cache_read_mtok", "cache_write": "cache_write_mtok"}
        found = {ours: getattr(price, theirs) for ours, theirs in names.items()}
        if found["input"] is None and found["output"] is None:
            return None
        starts = sorted({tier.start for value in found.values() for tier in getattr(value, "tiers", ())})
        above = tuple((start, self._flat(found, start + 1)) for start in starts)
        return self._flat(found, 0, above)

    def _flat(self, found: dict[str, Any], prompt: int, above: tuple[tuple[int, Rates], ...] = ()) -> Rates:
        flat = {name: _at(value, prompt) for name, value in found.items()}
        zero = Decimal(0)
        return Rates(
            input=flat["input"] or zero,
            output=flat["output"] or zero,
            cache_read=flat["cache_read"],
            cache_write=flat["cache_write"],
            above=above,
            version=self.version,
        )


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


def free_here(pricer: Pricer, model: str, address: str) -> bool:
    """Whether a model of a server costs nothing: it is on this machine, and no list of prices knows its name.

    A gateway on this machine passes the bill of a vendor's model on, so that such a model has its price there, too.

    Example:
        >>> [free_here(Pricer(), model, "http://127.0.0.1:8080/v1") for model in ("qwen3", "gpt-4o-mini")]
        [True, False]
    """
    known = pricer.knows("", model) or pricer.knows("openai", model)
    return bool(address) and not known and is_loopback(address)
