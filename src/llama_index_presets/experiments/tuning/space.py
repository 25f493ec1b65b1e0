"""Configurations that a tuner tries: settings by axis, each combination once."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from llama_index_presets._options import did_you_mean
from llama_index_presets.errors import SettingsError
from llama_index_presets.experiments.evaluation import parse_settings
from llama_index_presets.presets.settings import Settings

__all__ = ["AXES", "INDEX_AXES", "Configuration", "configurations", "index_of", "parse_axes"]

Configuration = Mapping[str, Any]
"""Setting -> value, of every axis that matters to it."""

INDEX_AXES: Final = ("embedding", "chunking", "chunk_tokens")
"""Axes whose values need an index of their own."""

AXES: Final[Mapping[str, tuple[Any, ...]]] = {
    "embedding": (),
    "chunking": ("sentence", "sentence-window"),
    "chunk_tokens": (64, 128, 256, None),
    "pattern": ("simple", "hybrid"),
    "fusion": ("auto", "relative", "rrf"),
    "vector_weight": (None, 0.3, 0.7),
    "reranker": (),
    "blend": (0.0, 0.5),
    "top_k": (3, 5, 8, 12),
}
"""Axis -> values that are tried beside the value of today."""

_OF_PATTERN: Final = {
    "fusion": "hybrid",
    "vector_weight": "hybrid",
    "reranker": "advanced",
    "blend": "advanced",
}
_SEED: Final = 1


def parse_axes(pairs: Iterable[str]) -> dict[str, tuple[Any, ...]]:
    """Read ``AXIS=VALUE,VALUE`` pairs; ``none`` is no value, as in ``chunk_tokens=none``.

    Raises:
        SettingsError: The axis is unknown, or has no value.

    Example:
        >>> parse_axes(["top_k=3,8", "chunk_tokens=none,128"])
        {'top_k': (3, 8), 'chunk_tokens': (None, 128)}
    """
    found: dict[str, tuple[Any, ...]] = {}
    for pair in pairs:
        name, equals, text = (part.strip() for part in pair.partition("="))
        values = [part.strip() for part in text.split(",") if part.strip()]
        if not equals or not values:
            raise SettingsError(f"--try is '{pair}'; expected AXIS=VALUE,VALUE, such as top_k=3,8.")
        if name not in AXES:
            hint = did_you_mean(name, AXES, listed="Choose one of", cutoff=0.5)
            raise SettingsError(f"--try names '{name}', which is no axis of the tuner. {hint}")
        parsed = [
            None if value.lower() == "none" else parse_settings([f"x={value}"])["x"] for value in values
        ]
        found[name] = tuple(dict.fromkeys(parsed))
    return found


def configurations(
    current: Settings,
    pattern: str,
    *,
    given: Mapping[str, Sequence[Any]] | None = None,
    reranker: bool = False,
    images: bool = False,
    longest: int | None = None,
    indexes: Sequence[Configuration] | None = None,
    count: int = 40,
) -> list[Configuration]:
    """Configurations to try; the first is what is used today.

    Args:
        current: Today's settings.
        pattern: Today's pattern, where the settings leave it to the preset.
        given: Axis -> values, in place of those of `AXES`.
        reranker: Whether a cross-encoder is at hand, so that the pattern ``advanced`` can be tried.
        images: Whether the embedding reads images: such an index has one pattern and one way of cutting.
        longest: Tokens of the longest chunk of today's embedding model, where it is known: longer ones are the same.
        indexes: Ways of making an index that may be tried, see `index_of`; None takes all.
        count: How many at most. Of more, as many are drawn from each index and pattern, always the same ones.

    Raises:
        SettingsError: `count` is less than 2.
    """
    if count < 2:
        raise SettingsError(
            f"--configurations is {count}; it must be at least 2, of which one is today's settings."
        )
    today = {name: getattr(current, name) for name in AXES} | {"pattern": pattern}
    axes = {name: (today[name], *values) for name, values in AXES.items()}
    if reranker:
        axes["pattern"] += ("advanced",)
    if images:
        axes |= {"pattern": ("simple",), "chunking": ("sentence",), "chunk_tokens": (today["chunk_tokens"],)}
    if longest is not None:
        axes["chunk_tokens"] = tuple(one for one in axes["chunk_tokens"] if one is None or one < longest)
    axes |= {name: tuple(values) for name, values in (given or {}).items()}
    first = _canonical(today)
    drawn = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    if "chunk_tokens" not in (given or {}):
        drawn = [_as_long_as_a_sentence(one, today["chunk_tokens"]) for one in drawn]
    made = map(_canonical, drawn)
    others = {key: one for one in made if (key := _key(one)) != _key(first)}
    if indexes is not None:
        known = {_key(one) for one in indexes}
        others = {key: one for key, one in others.items() if _key(index_of(one)) in known}
    return [first, *_spread(list(others.values()), count - 1)]


def _canonical(values: Mapping[str, Any]) -> dict[str, Any]:
    """Without the axes that its pattern does not read."""
    return {
        name: value
        for name, value in values.items()
        if _OF_PATTERN.get(name, values["pattern"]) == values["pattern"]
    }


def _as_long_as_a_sentence(values: dict[str, Any], chunk_tokens: int | None) -> dict[str, Any]:
    """Where a chunk is one sentence, another length makes the same index once more, but for its longest sentences."""
    return {**values, "chunk_tokens": chunk_tokens} if values["chunking"] == "sentence-window" else values


def _spread(found: Sequence[Configuration], count: int) -> list[Configuration]:
    """As many as possible of each index and pattern, in turn."""
    groups: dict[str, list[Configuration]] = {}
    for one in found:
        groups.setdefault(_key({**index_of(one), "pattern": one["pattern"]}), []).append(one)
    chance = random.Random(_SEED)  # nosec B311  # draws a sample, no secret
    for group in groups.values():
        chance.shuffle(group)
    turns = itertools.chain.from_iterable(itertools.zip_longest(*groups.values()))
    return [one for one in turns if one is not None][:count]


def index_of(one: Configuration) -> dict[str, Any]:
    """The part of a configuration that its index is made with."""
    return {name: one[name] for name in INDEX_AXES}


def _key(values: Mapping[str, Any]) -> str:
    return json.dumps(values, sort_keys=True)
