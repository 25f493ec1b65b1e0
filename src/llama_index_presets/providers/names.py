"""Names of models: one spelling for language, embedding and reranking models. Imports nothing that it names.

openai/gpt-5-mini                   a provider of a table, and what it calls the model
gpt-5-mini, claude-sonnet-4-5       a bare name that one provider is known for
http://localhost:8080/v1#qwen       a server, and the model that it serves
my_app.models:Mine?temperature=0    a class of the application, with arguments
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from llama_index_presets._options import nearest
from llama_index_presets.errors import SettingsError

__all__ = ["CLASS", "SERVER", "ModelName", "Provider", "refuse_unknown_name", "spelt"]

SERVER = "http"
"""Provider of every name that is the address of a server."""

CLASS = "class"
"""Provider of every name that is a class of the application."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """Where a model comes from.

    Attributes:
        about: What it is, in a few words.
        module: Module of the LlamaIndex class.
        kind: Name of that class.
        extra: Extra of this package that brings the module.
        packages: Further modules that must be importable.
        keys: Environment variables with the key, the first that is set wins; empty where none is needed.
        endpoints: Environment variables with the address of the server, likewise.
        endpoint: Address without any of them; empty for the vendor's own.
        bare: Beginnings of model names that need no ``provider/`` in front.
        names: Option of ours -> argument of the class, where it has another name; an empty one is not taken.
        fixed: Further arguments.
        variables: Environment variable that the vendor's SDK reads beside -> argument of the class.
        prices: Provider as `genai-prices` spells it; empty where it has none.
        on_this_machine: Whether it needs no server at all.
    """

    about: str
    module: str
    kind: str
    extra: str
    packages: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    endpoints: tuple[str, ...] = ()
    endpoint: str = ""
    bare: tuple[str, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    prices: str = ""
    on_this_machine: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelName:
    """A name, read.

    Attributes:
        provider: Key of the table of providers; `CLASS` for one of the application's own.
        model: What the provider calls it; ``module:Class`` for one of the application's own.
        endpoint: Address that the name itself gives; empty otherwise.
        arguments: Of one of the application's own.
    """

    provider: str
    model: str
    endpoint: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)


def spelt(name: str, providers: Mapping[str, Provider], *, setting: str) -> ModelName | None:
    """Read a name by the spellings that all kinds of models share; None where it has none of them.

    Args:
        name: The name.
        providers: Name before the slash -> provider.
        setting: Of which setting it is the value, for messages: ``"llm"``.

    Raises:
        SettingsError: It has one of the spellings, and something is missing or out of place.
    """
    if name.startswith(("http://", "https://")):
        return _of_server(name, setting)
    provider, slash, model = name.partition("/")
    if slash and provider in providers and provider != SERVER:
        if not model:
            raise SettingsError(f"'{name}' names no model. Write {provider}/MODEL.")
        return ModelName(provider=provider, model=model)
    for known, one in providers.items():
        if one.bare and name.startswith(one.bare):
            return ModelName(provider=known, model=name)
    return _of_class(name) if ":" in name and not slash else None


def _of_server(name: str, setting: str) -> ModelName:
    endpoint, _, model = name.partition("#")
    if not model or not urlsplit(endpoint).hostname:
        raise SettingsError(
            f"'{name}' names no model. Write http://HOST:PORT/v1#MODEL, as the server calls it."
        )
    if urlsplit(endpoint).password or urlsplit(endpoint).username:
        raise SettingsError(
            f'A key has no place in the address of a server. Name its variable: [{setting}] key = "MY_KEY".'
        )
    return ModelName(provider=SERVER, model=model, endpoint=endpoint)


def _of_class(name: str) -> ModelName:
    path, _, query = name.partition("?")
    module, _, kind = path.partition(":")
    if not all(part.isidentifier() for part in [*module.split("."), kind]):
        raise SettingsError(f"'{name}' is no class. Write module:Class?argument=value.")
    return ModelName(
        provider=CLASS, model=path, arguments={key: _value(text) for key, text in parse_qsl(query)}
    )


def _value(text: str) -> Any:
    """A JSON value where it is one, else the text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def refuse_unknown_name(
    name: str, providers: Mapping[str, Provider], *, what: str, alone: tuple[str, ...], spellings: str
) -> SettingsError:
    """Make the error for a name that is spelt in no known way; it names the nearest.

    Args:
        name: The name.
        providers: The table.
        what: ``"language model"``.
        alone: Names that stand without a provider.
        spellings: Further ways to write a name.
    """
    known = [one for one in providers if one != SERVER]
    provider, slash, model = name.partition("/")
    if slash:
        near = nearest(provider, known)
        hint = f"Did you mean '{near}/{model}'?" if near else f"Known: {', '.join(known)}."
        return SettingsError(f"There is no provider '{provider}' of {what}s. {hint}")
    near = nearest(name, alone, cutoff=0.7)
    hint = f" Did you mean '{near}'?" if near else ""
    return SettingsError(
        f"There is no {what} '{name}'.{hint} Write PROVIDER/MODEL ({', '.join(known)}), {spellings}."
    )
