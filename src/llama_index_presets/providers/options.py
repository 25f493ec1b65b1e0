"""Options of a model beside its name: the tables ``[llm]``, ``[embedding]`` and ``[reranker]``, key and endpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from llama_index_presets._addresses import is_loopback
from llama_index_presets._options import did_you_mean
from llama_index_presets.errors import SettingsError
from llama_index_presets.providers.names import ModelName, Provider
from llama_index_presets.providers.variables import first_variable

__all__ = [
    "EMBEDDING",
    "LLM",
    "RERANKER",
    "arguments_of",
    "check_options",
    "endpoint_at",
    "key_of",
    "of_any_model",
    "stays_here",
]

_SHARED: Final[dict[str, tuple[type, ...]]] = {
    "timeout_s": (int, float),
    "headers": (dict,),
    "key": (str,),
    "endpoint": (str,),
}
LLM: Final[dict[str, tuple[type, ...]]] = {
    "temperature": (int, float),
    "max_tokens": (int,),
    "context_window": (int,),
    **_SHARED,
}
"""What the table ``[llm]`` of a settings file may hold beside the name -> its types."""
EMBEDDING: Final[dict[str, tuple[type, ...]]] = {"batch_size": (int,), **_SHARED}
"""The same of ``[embedding]``."""
RERANKER: Final[dict[str, tuple[type, ...]]] = dict(_SHARED)
"""The same of ``[reranker]``."""
_KNOWN: Final[dict[str, dict[str, tuple[type, ...]]]] = {
    "llm": LLM,
    "embedding": EMBEDDING,
    "reranker": RERANKER,
}
_WHAT: Final = {"llm": "a language model", "embedding": "an embedding model", "reranker": "a reranker"}


def check_options(options: Mapping[str, Any], setting: str = "llm") -> dict[str, Any]:
    """Check the options of a model.

    Args:
        options: Of a language model: `temperature`; `max_tokens` of an answer; `context_window` in tokens. Of an
            embedding model: `batch_size`, texts of a request. Of any: `timeout_s` of a
            request; `headers` of each request; `key`, the *name* of the environment variable with the key; `endpoint`.
        setting: Whose: ``"llm"``, ``"embedding"`` or ``"reranker"``.

    Raises:
        SettingsError: An unknown option, with the nearest; a value of another type.

    Example:
        >>> check_options({"temperature": 0})
        {'temperature': 0}
    """
    known = _KNOWN[setting]
    for name, value in options.items():
        if name not in known:
            raise SettingsError(
                f"There is no option '{name}' of {_WHAT[setting]}. {did_you_mean(name, known)}"
            )
        kinds = known[name]
        if not isinstance(value, kinds) or isinstance(value, bool):
            raise SettingsError(
                f"{setting}.{name} is {value!r}; expected {' or '.join(kind.__name__ for kind in kinds)}."
            )
        if isinstance(value, (int, float)) and name != "temperature" and value <= 0:
            raise SettingsError(f"{setting}.{name} is {value}; it must be above 0.")
    if not all(isinstance(one, str) for one in options.get("headers", {}).values()):
        raise SettingsError(f"{setting}.headers must be texts.")
    return dict(options)


def of_any_model(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that still mean something when another model is named; key, headers and address belong to one.

    Example:
        >>> of_any_model({"temperature": 0, "key": "MY_KEY"})
        {'temperature': 0}
    """
    return {
        name: options[name]
        for name in ("temperature", "max_tokens", "timeout_s", "batch_size")
        if name in options
    }


def endpoint_at(
    name: ModelName, providers: Mapping[str, Provider], options: Mapping[str, Any], setting: str
) -> tuple[str, str]:
    """The address that a model is asked at, and what gave it; empty for the vendor's own."""
    if name.endpoint:
        return name.endpoint, "name"
    if options.get("endpoint"):
        return options["endpoint"], f"{setting}.endpoint"
    provider = providers.get(name.provider)
    if provider is None:
        return "", ""
    if (found := first_variable(provider.endpoints)) is not None:
        where = "" if found.source == "environment" else f" in {found.source}"
        return _with_scheme(found.value), f"{found.name}{where}"
    return provider.endpoint, "default" if provider.endpoint else ""


def _with_scheme(address: str) -> str:
    """``OLLAMA_HOST`` is often written without one, and as an address to listen on."""
    full = address if "://" in address else f"http://{address}"
    return full.replace("//0.0.0.0", "//127.0.0.1")


def stays_here(
    name: ModelName, providers: Mapping[str, Provider], options: Mapping[str, Any], setting: str
) -> bool:
    """Whether asking a model sends nothing elsewhere; a class of the application's own is judged once it is made."""
    provider = providers.get(name.provider)
    if provider is None or provider.on_this_machine:
        return True
    address, _ = endpoint_at(name, providers, options, setting)
    return bool(address) and is_loopback(address)


def key_of(name: ModelName, provider: Provider, options: Mapping[str, Any]) -> str | None:
    """The key, by the variable that the settings name, else by those of the vendor's SDK; None where none is needed.

    Raises:
        SettingsError: None of the variables is set.
    """
    variables = (options["key"],) if "key" in options else provider.keys
    if (found := first_variable(variables, secret=True)) is not None:
        return found.value
    if variables:
        raise SettingsError(
            f"'{name.model}' of {provider.about} needs a key and {' or '.join(variables)} is not set. "
            "Set it, or use offline=True (--offline)."
        )
    return None


def arguments_of(values: Mapping[str, Any], provider: Provider, setting: str) -> dict[str, Any]:
    """Arguments of a provider's class from options of ours.

    Raises:
        SettingsError: The class takes no such option.
    """
    arguments = dict(provider.fixed)
    for option, value in values.items():
        argument = provider.names.get(option, option)
        if not argument:
            raise SettingsError(f"{provider.about} takes no {option}. Leave {setting}.{option} out.")
        arguments[argument] = value
    for variable, argument in provider.variables.items():
        if (found := first_variable((variable,), secret=True)) is not None:
            arguments[argument] = found.value
    return arguments
