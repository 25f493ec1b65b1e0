"""Language models by name: the spellings of a name, and the LlamaIndex class behind it.

    extractive                          quotes the passages; no model
    openai/gpt-5-mini                   a provider of the table and its model
    gpt-5-mini, claude-sonnet-4-5       a bare name that one provider is known for
    ollama/llama3.2                     a model that Ollama serves on this machine
    llamacpp:/models/qwen.gguf          a file of weights
    smollm2                             weights from the package index; weak, for trying the whole path
    http://localhost:8080/v1#qwen       any server of OpenAI's protocol, and the model that it serves
    my_app.models:Mine?temperature=0    any LlamaIndex LLM of your own, with arguments

Keys and endpoints come from the environment variables that each vendor's own SDK reads, see `variables`. A key of one
vendor is never sent to an endpoint that merely speaks its protocol.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from pydantic import Field, PrivateAttr, create_model

from llama_index_presets.errors import SettingsError
from llama_index_presets.hidden_keys import SECRET_FIELDS, HidesKey
from llama_index_presets.monitor.prices import FREE_PROVIDER, Pricer, Rates
from llama_index_presets.packages.extras import require
from llama_index_presets.providers.language_providers import PROVIDERS
from llama_index_presets.providers.names import (
    CLASS,
    SERVER,
    ModelName,
    refuse_unknown_name,
    spelt,
)
from llama_index_presets.providers.options import (
    arguments_of,
    check_options,
    endpoint_at,
    key_of,
    stays_here,
)
from llama_index_presets.providers.variables import find_variable

if TYPE_CHECKING:
    from llama_index.core.llms.llm import LLM

__all__ = [
    "endpoint_of",
    "is_on_this_machine",
    "language_model_rates",
    "make_language_model",
    "named_class",
    "plain_arguments",
    "read_name",
    "required_modules",
]

TEMPERATURE: Final = 0.1
"""Of answers from passages: close to the text, and still fluent."""

_ALONE: Final = ("extractive", "smollm2")
"""Names that stand without a provider."""


def read_name(name: str) -> ModelName:
    """Read the name of a language model.

    Raises:
        SettingsError: It is spelt in no way that this package knows; names the nearest provider.

    Example:
        >>> read_name("ollama/llama3.2").provider, read_name("gpt-5-mini").provider
        ('ollama', 'openai')
        >>> read_name("http://localhost:8080/v1#qwen").endpoint
        'http://localhost:8080/v1'
        >>> read_name("olama/llama3.2")
        Traceback (most recent call last):
        llama_index_presets.errors.SettingsError: There is no provider 'olama' of language models. ...
    """
    if name in _ALONE:
        return ModelName(provider=name, model=name)
    if name.startswith("llamacpp:"):
        return ModelName(provider="llamacpp", model=name.removeprefix("llamacpp:"))
    read = spelt(name, _WITH_SLASH, setting="llm")
    if read is None:
        raise refuse_unknown_name(
            name, _WITH_SLASH, what="language model", alone=_ALONE,
            spellings="http://HOST:PORT/v1#MODEL, llamacpp:/FILE.gguf or module:Class",
        )  # fmt: skip
    return read


_WITH_SLASH: Final = {name: one for name, one in PROVIDERS.items() if name not in ("llamacpp", "smollm2")}


# -- where a model runs ------------------------------------------------------------------------------------------------


def endpoint_of(name: ModelName, options: Mapping[str, Any]) -> tuple[str, str]:
    """The address that a model is asked at, and what gave it; empty for the vendor's own.

    Example:
        >>> endpoint_of(read_name("ollama/llama3.2"), {"endpoint": "http://localhost:9"})
        ('http://localhost:9', 'llm.endpoint')
    """
    return endpoint_at(name, PROVIDERS, options, "llm")


def is_on_this_machine(name: ModelName, options: Mapping[str, Any]) -> bool:
    """Whether asking a model sends nothing elsewhere; a class of the application's own is judged once it is made."""
    return stays_here(name, PROVIDERS, options, "llm")


def language_model_rates(name: ModelName, pricer: Pricer, *, local: bool) -> tuple[str, Rates | None]:
    """Provider and prices of a model, as the ledger bills its calls.

    A vendor's model is priced wherever it is asked, since a gateway on this machine passes the bill on.

    Args:
        name: See `read_name`.
        pricer: Knows the prices.
        local: Whether asking it sends nothing elsewhere: it is free then, unless a vendor is named, or the list of
            prices knows it.

    Example:
        >>> language_model_rates(read_name("ollama/llama3.2"), Pricer(), local=True)[0]
        'local'
        >>> language_model_rates(read_name("openai/gpt-4o-mini"), Pricer(), local=True)[1].output
        Decimal('0.6')
    """
    known = PROVIDERS.get(name.provider)
    provider = known.prices if known else FREE_PROVIDER if name.provider == "extractive" else ""
    if local and not provider and not pricer.knows(provider, name.model):
        provider = FREE_PROVIDER
    return provider, pricer.rates(provider, name.model)


# -- the model --------------------------------------------------------------------------------------------------------


def make_language_model(name: str, options: Mapping[str, Any] | None = None) -> LLM:
    """Make a language model by its name: LlamaIndex's own class, retried in one layer, its key out of sight.

    Args:
        name: See the module's first lines.
        options: See `check_options`; the temperature is 0.1 where none is given.

    Raises:
        SettingsError: The name or an option is wrong, a key is missing, a package is missing (with its install line).

    Example:
        >>> make_language_model("extractive").class_name()
        'ExtractiveLLM'
    """
    from llama_index_presets.answer.extractive import ExtractiveLLM
    from llama_index_presets.monitor.retry import retrying

    parsed, checked = read_name(name), check_options(options or {})
    if parsed.provider == "extractive":
        if checked:
            raise SettingsError(f"The extractive answerer is no model and takes no {', '.join(checked)}.")
        return ExtractiveLLM()
    made = _own_class(parsed, checked) if parsed.provider == CLASS else _provided(parsed, checked)
    return retrying(made)


def _own_class(name: ModelName, options: Mapping[str, Any]) -> LLM:
    from llama_index.core.llms.llm import LLM

    own: LLM = make_own(name, options, LLM, "LLM of LlamaIndex")
    return own


def make_own(name: ModelName, options: Mapping[str, Any], base: type, what: str) -> Any:
    """An object of a class of the application.

    Raises:
        SettingsError: It cannot be imported, is no subclass of `base`, does not take the arguments, or there are
            options, which only the class itself could follow.
    """
    if options:
        raise SettingsError(
            f"A class takes no {', '.join(options)} from the settings. Give the arguments of '{name.model}' in its "
            f"name: {name.model}?argument=value."
        )
    module, _, kind = name.model.partition(":")
    try:
        found = getattr(importlib.import_module(module), kind)
    except (ImportError, AttributeError) as error:
        raise SettingsError(f"'{name.model}' cannot be imported ({error}).") from error
    if not (isinstance(found, type) and issubclass(found, base)):
        raise SettingsError(f"'{name.model}' is no {what}.")
    try:
        return found(**name.arguments)
    except (TypeError, ValueError) as error:
        given = ", ".join(name.arguments) or "none"
        raise SettingsError(
            f"'{name.model}' does not take its arguments ({given}): {type(error).__name__}."
        ) from error


def _provided(name: ModelName, options: Mapping[str, Any]) -> LLM:
    provider = PROVIDERS[name.provider]
    kind = getattr(require(provider.module, extra=provider.extra), provider.kind)
    key = key_of(name, provider, options) or ("none" if name.provider == SERVER else None)
    secrets = {
        **({"headers": options["headers"]} if "headers" in options else {}),
        **({"api_key": key} if key else {}),
    }
    arguments = arguments_of({**_values(name, options), **secrets}, provider, "llm")
    if adapt := _ADAPTERS.get(name.provider):
        adapt(name, arguments, options)
    made: LLM = named_class(kind)(**arguments)
    made.look_at_replies()  # type: ignore[attr-defined]
    if "context_window" in options:
        made._window = options["context_window"]  # type: ignore[attr-defined]
    return made


def _values(name: ModelName, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a model that are no secret."""
    address, _ = endpoint_of(name, options)
    return {
        "model": name.model,
        "temperature": options.get("temperature", TEMPERATURE),
        **{option: options[option] for option in ("max_tokens", "timeout_s") if option in options},
        **({"endpoint": address} if address else {}),
    }


def plain_arguments(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments that the class of a model is made with, for code that stands alone; no key and no header is among them.

    Example:
        >>> plain_arguments("ollama/llama3.2", {"endpoint": "http://localhost:11434"})
        {'model': 'llama3.2', 'temperature': 0.1, 'base_url': 'http://localhost:11434'}
    """
    read = read_name(name)
    provider = PROVIDERS.get(read.provider)
    if provider is None:
        return dict(read.arguments)
    arguments = dict(provider.fixed)
    arguments |= {
        provider.names.get(option, option): value for option, value in _values(read, options).items()
    }
    if read.provider == SERVER and "key" not in options:
        arguments["api_key"] = "none"
    if "context_window" in options and read.provider in ("ollama", SERVER):
        arguments["context_window"] = options["context_window"]
    adapt = _PLAIN_ADAPTERS.get(read.provider)
    if adapt is not None:
        adapt(read, arguments, options)
    if read.provider == "azure":
        arguments["model"] = read.model
    if read.provider == "bedrock":
        arguments |= _region()
    return arguments


# -- single providers -----------------------------------------------------------------------------------------


def _ollama(name: ModelName, arguments: dict[str, Any], options: Mapping[str, Any]) -> None:
    if "num_predict" in arguments:
        arguments["additional_kwargs"] = {"num_predict": arguments.pop("num_predict")}
    if "context_window" in options:  # Ollama is told, too
        arguments["context_window"] = options["context_window"]


def _azure(name: ModelName, arguments: dict[str, Any], options: Mapping[str, Any]) -> None:
    arguments["model"] = name.model
    if "api_version" not in arguments:
        raise SettingsError(
            f"'{name.model}' of {PROVIDERS['azure'].about} needs the version of its interface and OPENAI_API_VERSION "
            "is not set. Set it, such as to 2024-10-21."
        )
    if "azure_endpoint" not in arguments:
        raise SettingsError(
            f"'{name.model}' of {PROVIDERS['azure'].about} needs its address and AZURE_OPENAI_ENDPOINT is not set. "
            "Set it to https://RESOURCE.openai.azure.com."
        )


def _gemini(name: ModelName, arguments: dict[str, Any], options: Mapping[str, Any]) -> None:
    http: dict[str, Any] = {"headers": arguments.pop("headers", {})}
    if "base_url" in arguments:
        http["base_url"] = arguments.pop("base_url")
    if "timeout" in arguments:
        http["timeout"] = int(arguments.pop("timeout") * 1000)  # milliseconds
    arguments["http_options"] = http
    if "temperature" not in options:  # the class knows which models refuse one
        del arguments["temperature"]
    arguments["context_window"] = options.get("context_window") or _window_of_gemini(name.model)


def _window_of_gemini(model: str) -> int:
    from llama_index_presets.monitor.prices import context_window_of

    return context_window_of("google", model) or 1_000_000


def _bedrock(name: ModelName, arguments: dict[str, Any], options: Mapping[str, Any]) -> None:
    """Hand credentials that are not in the environment to botocore, in a session: as arguments they are in reprs."""
    found = {
        variable: one
        for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
        if (one := find_variable(variable, secret=True)) is not None
    }
    arguments |= _region()
    if any(one.source != "environment" for one in found.values()):
        session = require("botocore.session", extra="bedrock").Session()
        session.set_credentials(*(one.value for one in found.values()))
        arguments["botocore_session"] = session
    timeout = arguments.get("timeout", 60)
    arguments["botocore_config"] = require("botocore.config", extra="bedrock").Config(
        retries={"total_max_attempts": 1},  # of boto's own: retries are ours
        connect_timeout=timeout,
        read_timeout=timeout,
    )


def _region() -> dict[str, str]:
    """The region, also from the variable that boto3 does not read itself."""
    region = find_variable("AWS_REGION") or find_variable("AWS_DEFAULT_REGION")
    return {} if region is None else {"region_name": region.value}


def _smollm2(name: ModelName, arguments: dict[str, Any], options: Mapping[str, Any]) -> None:
    # now, not at the first question
    require("llama_index_presets.providers.smollm2", extra="smollm2").weights_folder()
    del arguments["model"]
    if "temperature" not in options:
        arguments["temperature"] = 0.0


_ADAPTERS: Final = {
    "azure": _azure,
    "bedrock": _bedrock,
    "gemini": _gemini,
    "ollama": _ollama,
    "smollm2": _smollm2,
}


_PLAIN_ADAPTERS: Final = {name: _ADAPTERS[name] for name in ("gemini", "ollama", "smollm2")}
"""Of these the arguments are plain values; credentials and sessions of the others come from the environment."""


# -- its class --------------------------------------------------------------------------------------------------------


def __getattr__(name: str) -> Any:
    """Give a class that hides its key by the name of the official one, so that pickles find it."""
    for provider in PROVIDERS.values():
        if provider.kind == name:
            return named_class(getattr(require(provider.module, extra=provider.extra), name))
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@cache
def named_class(kind: Any) -> Any:
    """A LlamaIndex class with `NamedLLM` before it, and its key, if it is a field, in no repr, dump or pickle."""
    from llama_index_presets.providers.named_llm import HoldsClients, NamedLLM

    if issubclass(kind, NamedLLM):
        return kind
    fields: dict[str, Any] = {
        "_window": (int | None, PrivateAttr(default=None)),
        "_refused": (frozenset[str], PrivateAttr(default=frozenset())),
        "_loop": (Any, PrivateAttr(default=None)),
    }
    bases: tuple[type, ...] = (NamedLLM, kind)
    if isinstance(getattr(kind, "async_client", None), property):
        bases = (NamedLLM, HoldsClients, kind)
    if set(SECRET_FIELDS) <= set(kind.model_fields) and not issubclass(kind, HidesKey):
        bases = (NamedLLM, HidesKey, kind)
        fields |= {
            "api_key": (str | None, Field(default=None, exclude=True, repr=False)),
            "default_headers": (dict[str, str] | None, Field(default=None, exclude=True, repr=False)),
            "_process": (int, PrivateAttr(default_factory=os.getpid)),
        }
    elif "headers" in kind.model_fields:
        fields["headers"] = (dict[str, str] | None, Field(default=None, exclude=True, repr=False))
    return create_model(kind.__name__, __base__=bases, __module__=__name__, **fields)


def required_modules(name: ModelName) -> tuple[str, ...]:
    """Modules that must be importable to ask a model."""
    provider = PROVIDERS.get(name.provider)
    if provider is None:
        return (name.model.partition(":")[0],) if name.provider == CLASS else ()
    return provider.packages or (provider.module,)
