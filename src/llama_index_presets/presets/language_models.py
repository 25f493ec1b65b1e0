"""Language models by name: the table of providers, the spellings of a name, the LlamaIndex class behind it.

    extractive                          quotes the passages; no model
    openai/gpt-5-mini                   a provider of the table and its model
    gpt-5-mini, claude-sonnet-4-5       a bare name that one provider is known for
    ollama/llama3.2                     a model that Ollama serves on this machine
    llamacpp:/models/qwen.gguf          a file of weights
    http://localhost:8080/v1#qwen       any server of OpenAI's protocol, and the model that it serves
    my_app.models:Mine?temperature=0    any LlamaIndex LLM of your own, with arguments

Keys and endpoints come from the environment variables that each vendor's own SDK reads. A key of one vendor is never
sent to an endpoint that merely speaks its protocol.
"""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, urlsplit

from pydantic import Field, PrivateAttr, create_model

from llama_index_presets._addresses import is_loopback
from llama_index_presets._extras import require
from llama_index_presets.errors import SettingsError
from llama_index_presets.hidden_keys import SECRET_FIELDS, HidesKey

if TYPE_CHECKING:
    from llama_index.core.llms.llm import LLM

__all__ = [
    "PROVIDERS",
    "LanguageModelName",
    "Provider",
    "check_options",
    "is_on_this_machine",
    "make_language_model",
    "read_name",
    "required_modules",
]

TEMPERATURE: Final = 0.1
"""Of answers from passages: close to the text, and still fluent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """Where a language model comes from.

    Attributes:
        about: What it is, in a few words.
        module: Module of the LlamaIndex class.
        kind: Name of that class.
        extra: Extra of this package that brings the module.
        keys: Environment variables with the key, the first that is set wins; empty where none is needed.
        endpoints: Environment variables with the address of the server, likewise.
        endpoint: Address without any of them; empty for the vendor's own.
        bare: Beginnings of model names that need no ``provider/`` in front.
        names: Option of ours -> argument of the class, where it has another name; an empty one is not taken.
        fixed: Further arguments.
    """

    about: str
    module: str
    kind: str
    extra: str
    keys: tuple[str, ...] = ()
    endpoints: tuple[str, ...] = ()
    endpoint: str = ""
    bare: tuple[str, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)


_OPENAI_NAMES: Final = {
    "endpoint": "api_base",
    "timeout_s": "timeout",
    "headers": "default_headers",
}

PROVIDERS: Final[dict[str, Provider]] = {
    "openai": Provider(
        about="OpenAI",
        module="llama_index_presets.presets.openai_llm",
        kind="OpenAI",
        extra="openai",
        keys=("OPENAI_API_KEY",),
        endpoints=("OPENAI_BASE_URL", "OPENAI_API_BASE"),
        bare=("gpt-", "chatgpt-", "o1", "o3", "o4"),
        names=_OPENAI_NAMES,
    ),
    "azure": Provider(
        about="a deployment at Azure OpenAI",
        module="llama_index.llms.azure_openai",
        kind="AzureOpenAI",
        extra="azure",
        keys=("AZURE_OPENAI_API_KEY",),
        endpoints=("AZURE_OPENAI_ENDPOINT",),
        names={**_OPENAI_NAMES, "model": "engine", "endpoint": "azure_endpoint", "context_window": ""},
    ),
    "anthropic": Provider(
        about="Anthropic",
        module="llama_index.llms.anthropic",
        kind="Anthropic",
        extra="anthropic",
        keys=("ANTHROPIC_API_KEY",),
        endpoints=("ANTHROPIC_BASE_URL",),
        bare=("claude-",),
        names={
            "endpoint": "base_url",
            "timeout_s": "timeout",
            "headers": "default_headers",
            "context_window": "",
        },
    ),
    "gemini": Provider(
        about="Google Gemini",
        module="llama_index.llms.google_genai",
        kind="GoogleGenAI",
        extra="gemini",
        keys=("GOOGLE_API_KEY", "GEMINI_API_KEY"),
        bare=("gemini-",),
        names={"endpoint": "", "timeout_s": "", "headers": "", "context_window": "context_window"},
    ),
    "mistral": Provider(
        about="Mistral",
        module="llama_index.llms.mistralai",
        kind="MistralAI",
        extra="mistral",
        keys=("MISTRAL_API_KEY",),
        endpoints=("MISTRAL_ENDPOINT",),
        bare=("mistral-", "ministral-", "codestral-"),
        names={"endpoint": "endpoint", "timeout_s": "timeout", "headers": "", "context_window": ""},
    ),
    "groq": Provider(
        about="Groq",
        module="llama_index.llms.groq",
        kind="Groq",
        extra="groq",
        keys=("GROQ_API_KEY",),
        names=_OPENAI_NAMES,
    ),
    "deepseek": Provider(
        about="DeepSeek",
        module="llama_index.llms.deepseek",
        kind="DeepSeek",
        extra="deepseek",
        keys=("DEEPSEEK_API_KEY",),
        bare=("deepseek-",),
        names=_OPENAI_NAMES,
    ),
    "bedrock": Provider(
        about="Amazon Bedrock",
        module="llama_index.llms.bedrock_converse",
        kind="BedrockConverse",
        extra="bedrock",
        names={
            "endpoint": "endpoint_url",
            "timeout_s": "timeout",
            "headers": "",
            "context_window": "context_size",
        },
    ),
    "ollama": Provider(
        about="Ollama",
        module="llama_index.llms.ollama",
        kind="Ollama",
        extra="ollama",
        endpoints=("OLLAMA_HOST",),
        endpoint="http://localhost:11434",
        names={"endpoint": "base_url", "timeout_s": "request_timeout", "max_tokens": "num_predict"},
    ),
    "llamacpp": Provider(
        about="a GGUF file on this machine",
        module="llama_index.llms.llama_cpp",
        kind="LlamaCPP",
        extra="llamacpp",
        names={
            "model": "model_path",
            "max_tokens": "max_new_tokens",
            "endpoint": "",
            "timeout_s": "",
            "headers": "",
        },
        fixed={"verbose": False},
    ),
    "http": Provider(
        about="a server of OpenAI's protocol",
        module="llama_index.llms.openai_like",
        kind="OpenAILike",
        extra="openai-like",
        names=_OPENAI_NAMES,
        fixed={"is_chat_model": True},
    ),
}
"""Name before the slash -> provider; ``http`` stands for every ``http://…#model``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguageModelName:
    """A name, read.

    Attributes:
        provider: Key of `PROVIDERS`; ``extractive``, or ``class`` for one of the application's own.
        model: What the provider calls it; ``module:Class`` for one of the application's own.
        endpoint: Address that the name itself gives; empty otherwise.
        arguments: Of one of the application's own.
    """

    provider: str
    model: str
    endpoint: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)


def read_name(name: str) -> LanguageModelName:
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
    if name == "extractive":
        return LanguageModelName(provider="extractive", model="extractive")
    if name.startswith(("http://", "https://")):
        return _of_server(name)
    if name.startswith("llamacpp:"):
        return LanguageModelName(provider="llamacpp", model=name.removeprefix("llamacpp:"))
    provider, slash, model = name.partition("/")
    if slash and provider in PROVIDERS and provider not in ("http", "llamacpp"):
        if not model:
            raise SettingsError(f"'{name}' names no model. Write {provider}/MODEL.")
        return LanguageModelName(provider=provider, model=model)
    for known, one in PROVIDERS.items():
        if one.bare and name.startswith(one.bare):
            return LanguageModelName(provider=known, model=name)
    if ":" in name and not slash:
        return _of_class(name)
    raise SettingsError(_unknown(name, provider if slash else "", model))


def _of_server(name: str) -> LanguageModelName:
    endpoint, _, model = name.partition("#")
    if not model or not urlsplit(endpoint).hostname:
        raise SettingsError(
            f"'{name}' names no model. Write http://HOST:PORT/v1#MODEL, as the server calls it."
        )
    if urlsplit(endpoint).password or urlsplit(endpoint).username:
        raise SettingsError(
            'A key has no place in the address of a server. Name its variable: [llm] key = "MY_KEY".'
        )
    return LanguageModelName(provider="http", model=model, endpoint=endpoint)


def _of_class(name: str) -> LanguageModelName:
    path, _, query = name.partition("?")
    module, _, kind = path.partition(":")
    if not all(part.isidentifier() for part in [*module.split("."), kind]):
        raise SettingsError(f"'{name}' is no class. Write module:Class?argument=value.")
    return LanguageModelName(
        provider="class", model=path, arguments={key: _value(text) for key, text in parse_qsl(query)}
    )


def _value(text: str) -> Any:
    """A JSON value where it is one, else the text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _unknown(name: str, provider: str, model: str) -> str:
    spellings = [known for known in PROVIDERS if known not in ("http", "llamacpp")]
    if provider:
        nearest = get_close_matches(provider, spellings, n=1)
        hint = f"Did you mean '{nearest[0]}/{model}'?" if nearest else f"Known: {', '.join(spellings)}."
        return f"There is no provider '{provider}' of language models. {hint}"
    beginnings = [beginning for one in PROVIDERS.values() for beginning in one.bare]
    nearest = get_close_matches(name, ["extractive", *beginnings], n=1, cutoff=0.5)
    hint = f" Did you mean '{nearest[0]}'?" if nearest and nearest[0] == "extractive" else ""
    return (
        f"There is no language model '{name}'.{hint} Write PROVIDER/MODEL ({', '.join(spellings)}), "
        "http://HOST:PORT/v1#MODEL, llamacpp:/FILE.gguf or module:Class."
    )


# -- options --------------------------------------------------------------------------------------------------------

_OPTIONS: Final[dict[str, tuple[type, ...]]] = {
    "temperature": (int, float),
    "max_tokens": (int,),
    "timeout_s": (int, float),
    "context_window": (int,),
    "headers": (dict,),
    "key": (str,),
    "endpoint": (str,),
}
"""What the table ``[llm]`` of a settings file may hold beside the name -> its types."""


def check_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Check the options of a language model.

    Args:
        options: `temperature`; `max_tokens` of an answer; `timeout_s` of a request; `context_window` in tokens;
            `headers` of each request; `key`, the *name* of the environment variable with the key; `endpoint`.

    Raises:
        SettingsError: An unknown option, with the nearest; a value of another type.

    Example:
        >>> check_options({"temperature": 0})
        {'temperature': 0}
    """
    for name, value in options.items():
        if name not in _OPTIONS:
            nearest = get_close_matches(name, _OPTIONS, n=1)
            hint = f"Did you mean '{nearest[0]}'?" if nearest else f"Known: {', '.join(_OPTIONS)}."
            raise SettingsError(f"There is no option '{name}' of a language model. {hint}")
        kinds = _OPTIONS[name]
        if not isinstance(value, kinds) or isinstance(value, bool):
            raise SettingsError(
                f"llm.{name} is {value!r}; expected {' or '.join(kind.__name__ for kind in kinds)}."
            )
    if not all(isinstance(one, str) for one in options.get("headers", {}).values()):
        raise SettingsError("llm.headers must be texts.")
    return dict(options)


# -- where a model runs ------------------------------------------------------------------------------------------------


def endpoint_of(name: LanguageModelName, options: Mapping[str, Any]) -> tuple[str, str]:
    """The address that a model is asked at, and what gave it; empty for the vendor's own.

    Example:
        >>> endpoint_of(read_name("ollama/llama3.2"), {"endpoint": "http://localhost:9"})
        ('http://localhost:9', 'llm.endpoint')
    """
    if name.endpoint:
        return name.endpoint, "name"
    if options.get("endpoint"):
        return options["endpoint"], "llm.endpoint"
    provider = PROVIDERS.get(name.provider)
    if provider is None:
        return "", ""
    for variable in provider.endpoints:
        if address := os.environ.get(variable, ""):
            return _with_scheme(address), variable
    return provider.endpoint, "default" if provider.endpoint else ""


def _with_scheme(address: str) -> str:
    """``OLLAMA_HOST`` is often written without one, and as an address to listen on."""
    full = address if "://" in address else f"http://{address}"
    return full.replace("//0.0.0.0", "//127.0.0.1")


def is_on_this_machine(name: LanguageModelName, options: Mapping[str, Any]) -> bool:
    """Whether asking a model sends text elsewhere; a class of the application's own is judged once it is made."""
    if name.provider in ("extractive", "class", "llamacpp"):
        return True
    address, _ = endpoint_of(name, options)
    return bool(address) and is_loopback(address)


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
    made = _own_class(parsed, checked) if parsed.provider == "class" else _provided(parsed, checked)
    return retrying(made)


def _own_class(name: LanguageModelName, options: Mapping[str, Any]) -> LLM:
    from llama_index.core.llms.llm import LLM

    module, _, kind = name.model.partition(":")
    try:
        found = getattr(importlib.import_module(module), kind)
    except (ImportError, AttributeError) as error:
        raise SettingsError(f"'{name.model}' cannot be imported ({error}).") from error
    if not (isinstance(found, type) and issubclass(found, LLM)):
        raise SettingsError(f"'{name.model}' is no LLM of LlamaIndex.")
    if options:
        raise SettingsError(f"Give the arguments of '{name.model}' in its name: {name.model}?argument=value.")
    return found(**name.arguments)


def _provided(name: LanguageModelName, options: Mapping[str, Any]) -> LLM:
    provider = PROVIDERS[name.provider]
    kind = getattr(require(provider.module, extra=provider.extra), provider.kind)
    address, _ = endpoint_of(name, options)
    values = {
        "model": name.model,
        "temperature": options.get("temperature", TEMPERATURE),
        **{
            key: options[key]
            for key in ("max_tokens", "timeout_s", "context_window", "headers")
            if key in options
        },
        **({"endpoint": address} if address else {}),
        **_key(name, provider, options),
    }
    arguments = dict(provider.fixed)
    for option, value in values.items():
        argument = provider.names.get(option, option)
        if not argument:
            raise SettingsError(f"{provider.about} takes no {option}. Leave llm.{option} out.")
        arguments[argument] = value
    return _adapted(name, kind, arguments)


def _adapted(name: LanguageModelName, kind: Any, arguments: dict[str, Any]) -> LLM:
    """What single providers want beside the table."""
    if name.provider == "ollama" and "num_predict" in arguments:
        arguments["additional_kwargs"] = {"num_predict": arguments.pop("num_predict")}
    if name.provider == "azure":
        arguments["model"] = name.model
    made: LLM = _hiding_its_key(kind)(**arguments)
    return made


def __getattr__(name: str) -> Any:
    """Give a class that hides its key by the name of the official one, so that pickles find it."""
    for provider in PROVIDERS.values():
        if provider.kind == name:
            return _hiding_its_key(getattr(require(provider.module, extra=provider.extra), name))
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@cache
def _hiding_its_key(kind: Any) -> Any:
    """A class whose field `api_key` is in no repr, dump or pickle; one without such a field as it is."""
    if issubclass(kind, HidesKey) or not set(SECRET_FIELDS) <= set(kind.model_fields):
        return kind
    hidden: dict[str, Any] = {
        "api_key": (str | None, Field(default=None, exclude=True, repr=False)),
        "default_headers": (dict[str, str] | None, Field(default=None, exclude=True, repr=False)),
        "_process": (int, PrivateAttr(default_factory=os.getpid)),
    }
    return create_model(kind.__name__, __base__=(HidesKey, kind), __module__=__name__, **hidden)


def _key(name: LanguageModelName, provider: Provider, options: Mapping[str, Any]) -> dict[str, str]:
    """The key, by the variable that the settings name, else by those of the vendor's own SDK."""
    variables = (options["key"],) if "key" in options else provider.keys
    for variable in variables:
        if value := os.environ.get(variable):
            return {"api_key": value}
    if variables:
        raise SettingsError(
            f"'{name.model}' of {provider.about} needs a key and {' or '.join(variables)} is not set. "
            "Set it, or use offline=True (--offline)."
        )
    return {"api_key": "none"} if name.provider == "http" else {}


def required_modules(name: LanguageModelName) -> tuple[str, ...]:
    """Modules that must be importable to ask a model."""
    provider = PROVIDERS.get(name.provider)
    if provider is None:
        return (name.model.partition(":")[0],) if name.provider == "class" else ()
    # Behind our own class stands the official one, which may be missing.
    return ("llama_index.llms.openai",) if name.provider == "openai" else (provider.module,)
