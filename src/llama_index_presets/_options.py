"""Validation of options: an unknown name is refused, with the nearest known one, and so is a value of another type.

Standard library alone.
"""

from __future__ import annotations

import inspect
import math
import numbers
import os
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from difflib import get_close_matches
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar, cast

from llama_index_presets.errors import SettingsError, UnknownOptionError, WrongTypeError

__all__ = [
    "did_you_mean",
    "expect",
    "expect_each",
    "nearest",
    "one_value",
    "option_names",
    "refuse_unknown",
    "refuse_values",
    "strict",
]

Target = TypeVar("Target", bound=Callable[..., Any])

Limits = Mapping[str, tuple[tuple[Any, ...], str]]
"""Option -> the values that change nothing here, and why no other value is taken."""

_KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "str": ((str, os.PathLike), "a text"),
    "Path": ((str, os.PathLike), "a path"),
    "os.PathLike[str]": ((str, os.PathLike), "a path"),
    "bytes": ((bytes, bytearray), "bytes"),
    "int": ((numbers.Integral,), "a whole number"),
    "float": ((numbers.Real, Decimal), "a number"),
    "bool": ((bool,), "True or False"),
    "dict[str, str]": ((dict,), "a dictionary of texts"),
    "None": ((type(None),), "None"),
}
"""Annotation of a parameter -> types that it takes, and their name; one with another annotation is not checked."""

_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_ALSO = "__options_also__"


def expect(what: str, value: Any, kinds: type | tuple[type, ...], wanted: str) -> None:
    """Refuse an argument of another type.

    Args:
        what: Its name, or what was called with it.
        value: What was given; never shown.
        kinds: Types that it may have.
        wanted: What to give, in words.

    Raises:
        WrongTypeError: It has none of these types.

    Example:
        >>> expect("top_k", 3, int, "a whole number")
        >>> expect("top_k", "3", int, "a whole number")
        Traceback (most recent call last):
        llama_index_presets.errors.WrongTypeError: top_k is a str. Give a whole number.
    """
    if not isinstance(value, kinds):
        raise WrongTypeError(f"{what} is {_kind(value)}. Give {wanted}.")


def expect_each(what: str, values: Any, kind: type[Any] | tuple[type[Any], ...], wanted: str) -> list[Any]:
    """List of the values of an argument, each of one type; a text is no list of letters.

    Raises:
        WrongTypeError: It is no list, or something else is in it.

    Example:
        >>> expect_each("ids", ("a", "b"), str, "a list of ids")
        ['a', 'b']
        >>> expect_each("ids", "ab", str, "a list of ids")
        Traceback (most recent call last):
        llama_index_presets.errors.WrongTypeError: ids is a str. Give a list of ids.
    """
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise WrongTypeError(f"{what} is {_kind(values)}. Give {wanted}.")
    found = list(values)
    for one in found:
        if not isinstance(one, kind):
            raise WrongTypeError(f"{what} holds {_kind(one)}. Give {wanted}.")
    return found


def _kind(value: Any) -> str:
    name = type(value).__name__
    return "None" if value is None else f"{'an' if name[0] in 'aeioAEIO' else 'a'} {name}"


def refuse_unknown(owner: str, options: Iterable[str], known: Iterable[str]) -> None:
    """Refuse options that are not known.

    Args:
        owner: What was called, for the message.
        options: Names that the caller wrote.
        known: Names that are taken.

    Raises:
        UnknownOptionError: Names each unknown option and the known one that it is nearest to.

    Example:
        >>> refuse_unknown("Store", ["table"], ["table", "path"])
        >>> refuse_unknown("Store", ["tabel"], ["table", "path"])
        Traceback (most recent call last):
        llama_index_presets.errors.UnknownOptionError: Store does not know 'tabel': did you mean 'table'?
    """
    known = list(known)
    unknown = [name for name in options if name not in known]
    if unknown:
        raise UnknownOptionError(owner, {name: nearest(name, known) for name in unknown}, known)


def nearest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The known name that an unknown one is nearest to, None where none is near enough.

    Args:
        name: What was written.
        known: What there is.
        cutoff: How near a name has to be, 0 to 1; lower is farther.

    Example:
        >>> nearest("tabel", ["table", "path"])
        'table'
    """
    return next(iter(get_close_matches(name, list(known), n=1, cutoff=cutoff)), None)


def did_you_mean(name: str, known: Iterable[str], *, listed: str = "Known", cutoff: float = 0.6) -> str:
    """Last sentence of a message about an unknown name: the nearest known one, else all of them.

    Args:
        name: What was written.
        known: What there is.
        listed: What comes before all of them.
        cutoff: How near a name has to be, 0 to 1; lower is farther.

    Example:
        >>> did_you_mean("tabel", ["table", "path"]), did_you_mean("x", ["table", "path"])
        ("Did you mean 'table'?", 'Known: table, path.')
    """
    names = list(known)
    near = nearest(name, names, cutoff)
    return f"{listed}: {', '.join(names)}." if near is None else f"Did you mean '{near}'?"


def refuse_values(owner: str, options: Mapping[str, Any], limits: Limits) -> None:
    """Refuse a known option whose value cannot be honoured; the message gives the reason, never the value.

    Raises:
        SettingsError: Names the option, the reason, and what to do instead.

    Example:
        >>> refuse_values("Store", {"mode": "fast"}, {"mode": ((None, "fast"), "there is only 'fast'.")})
    """
    for name, (harmless, reason) in limits.items():
        value = options.get(name)
        if name in options and not any(value is one or value == one for one in harmless):
            raise SettingsError(f"{owner} cannot honour the value of {name}: {reason}")


def one_value(name: str, value: Any, usual: Any, other_name: str, other: Any) -> Any:
    """Merge the values of an option that has two names.

    Args:
        name: Its name here.
        value: What the caller gave under it, or `usual`.
        usual: What counts as not given.
        other_name: Its other name.
        other: What the caller gave under that.

    Returns:
        `other`.

    Raises:
        SettingsError: Both are given and differ.

    Example:
        >>> one_value("table", "vectors", "vectors", "table_name", "t")
        't'
    """
    if value != usual and value != other:
        raise SettingsError(
            f"{name} is {value!r} and {other_name} is {other!r}: both mean the same. Give one of them."
        )
    return other


def option_names(target: Callable[..., Any]) -> list[str]:
    """Keyword names that a function, or the constructor of a class, accepts.

    Where a constructor takes any keyword (``**``), those of the classes above it count; so do pydantic fields.

    Example:
        >>> option_names(refuse_values)
        ['owner', 'options', 'limits']
    """
    if not isinstance(target, type):
        return [*_parameters(target)[0], *getattr(target, _ALSO, ())]
    names: dict[str, None] = {}
    for owner in target.__mro__:
        if "__init__" in owner.__dict__:
            named, open_ended = _parameters(owner.__dict__["__init__"])
            names |= dict.fromkeys([*named, *owner.__dict__.get(_ALSO, ())])
            if not open_ended:
                break
    names |= dict.fromkeys(_fields(target))
    names.pop("self", None)
    return list(names)


def _parameters(function: Callable[..., Any]) -> tuple[list[str], bool]:
    """Names of the parameters, and whether any other keyword is taken too."""
    parameters = inspect.signature(function).parameters
    named = [name for name, one in parameters.items() if one.kind in _NAMED]
    return named, any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters.values())


def _positions(function: Callable[..., Any]) -> list[str]:
    """Names of the parameters that are taken by position, too; of one too many, Python says so itself."""
    parameters = inspect.signature(function).parameters
    return [name for name, one in parameters.items() if one.kind in (one.POSITIONAL_ONLY, _NAMED[0])]


def _fields(kind: type) -> list[str]:
    """Names and aliases of the fields of a pydantic model; none of another class."""
    fields: Mapping[str, Any] = getattr(kind, "model_fields", {})
    return [*fields, *(field.alias for field in fields.values() if field.alias)]


def _kinds(
    function: Callable[..., Any], own_check: frozenset[str]
) -> dict[str, tuple[tuple[type, ...], str]]:
    """Parameters whose annotation is of simple types: their types, and the words for them."""
    found = {}
    for name, one in inspect.signature(function).parameters.items():
        parts = [part.strip() for part in str(one.annotation).split("|")]
        if one.kind in _NAMED and name not in own_check and set(parts) <= _KINDS.keys():
            kinds = tuple(kind for part in parts for kind in _KINDS[part][0])
            found[name] = kinds, " or ".join(dict.fromkeys(_KINDS[part][1] for part in parts))
    return found


def _checked(
    kinds: Mapping[str, tuple[tuple[type, ...], str]], names: list[str], args: Any, options: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments by position and by name, each of the type that its annotation says."""
    by_position = [
        _as_annotated(name, value, *kinds[name]) if name in kinds else value
        for name, value in zip(names, args, strict=False)
    ]
    by_name = {
        name: _as_annotated(name, value, *kinds[name]) if name in kinds else value
        for name, value in options.items()
    }
    return (*by_position, *args[len(by_position) :]), by_name


def _as_annotated(name: str, value: Any, kinds: tuple[type, ...], wanted: str) -> Any:
    """The value; one that says the same in another type in Python's own: 5 for 5.0, True for 1 or NumPy's.

    What is let through as it came would fail later: in a slice, beside a float, as JSON, or as the name of a file.
    """
    if isinstance(value, (numbers.Real, Decimal)):
        number = _number(value, kinds)
        if number is not None:
            return number
    elif bool in kinds and type(value).__name__ in ("bool", "bool_"):
        return bool(value)
    elif os.PathLike in kinds and isinstance(value, os.PathLike) and not isinstance(value, Path):
        return Path(os.fsdecode(value))
    expect(name, value, kinds, wanted)
    return value


def _number(value: Any, kinds: tuple[type, ...]) -> int | float | None:
    """A number as one of these types; None where it is none of them."""
    if numbers.Integral in kinds:
        if isinstance(value, int):
            return value
        if math.isfinite(value) and value == int(value):
            return int(value)
    if numbers.Real in kinds:
        return value if isinstance(value, (int, float)) else float(value)
    return bool(value) if bool in kinds and value in (0, 1) else None


def strict(*, also: Iterable[str] = (), own_check: Iterable[str] = ()) -> Callable[[Target], Target]:
    """Decorator: a function, or the constructor of a class, refuses keywords that it does not know, and wrong types.

    A subclass may have fields of its own; they are known, too.

    Args:
        also: Names that are found in its ``**`` argument.
        own_check: Parameters whose type it checks itself.

    Example:
        >>> @strict()
        ... def area(width, height):
        ...     return width * height
        >>> area(width=2, heigth=3)
        Traceback (most recent call last):
        llama_index_presets.errors.UnknownOptionError: area does not know 'heigth': did you mean 'height'?
    """

    def decorate(target: Target) -> Target:
        if isinstance(target, type):
            return cast(Target, _strict_class(target, list(also), frozenset(own_check)))

        @wraps(target)
        def call(*args: Any, **options: Any) -> Any:
            refuse_unknown(target.__name__, options, names)
            args, options = _checked(kinds, positions, args, options)
            return target(*args, **options)

        setattr(call, _ALSO, list(also))
        names = option_names(call)
        positions, kinds = _positions(target), _kinds(target, frozenset(own_check))
        return cast(Target, call)

    return decorate


def _strict_class(target: type, also: list[str], own_check: frozenset[str]) -> type:
    init = target.__init__  # type: ignore[misc]  # of this very class

    @wraps(init)
    def __init__(self: Any, *args: Any, **options: Any) -> None:
        if not options.keys() <= names:
            # Unpickling gives a LlamaIndex object all of its __dict__ as keywords, private entries as well.
            written = [name for name in options if not name.startswith("_")]
            refuse_unknown(type(self).__name__, written, [*ordered, *_fields(type(self))])
        args, options = _checked(kinds, positions, args, options)
        init(self, *args, **options)

    target.__init__ = __init__  # type: ignore[misc]
    setattr(target, _ALSO, also)
    positions, kinds = _positions(init)[1:], _kinds(init, own_check)
    ordered = option_names(target)
    names = set(ordered)
    return target
