"""Who answers: the provider and model of a LlamaIndex model, found from its class and its own description."""

from __future__ import annotations

from typing import Any, Final

from llama_index_presets.monitor.prices import FREE_PROVIDER

__all__ = ["provider_of", "reranker_model"]

# Beginning of the class name (lower case, no separators) -> provider as `genai-prices` spells it.
_PROVIDERS: Final = {
    "openailike": "",
    "openai": "openai",
    "batchedopenai": "openai",
    "azure": "azure",
    "anthropic": "anthropic",
    "bedrock": "aws",
    "gemini": "google",
    "google": "google",
    "genai": "google",
    "vertex": "google",
    "mistral": "mistral",
    "cohere": "cohere",
    "voyage": "voyageai",
    "groq": "groq",
    "deepseek": "deepseek",
    "fireworks": "fireworks",
    "together": "together",
    "openrouter": "openrouter",
    "perplexity": "perplexity",
    "xai": "x-ai",
    "cerebras": "cerebras",
    # Models that run on a machine of one's own.
    "ollama": FREE_PROVIDER,
    "llamacpp": FREE_PROVIDER,
    "huggingfaceinference": "huggingface",
    "huggingface": FREE_PROVIDER,
    "sentencetransformer": FREE_PROVIDER,
    "crossencoder": FREE_PROVIDER,
    "flagembedding": FREE_PROVIDER,
    "fastembed": FREE_PROVIDER,
    "local": FREE_PROVIDER,
    "extractive": FREE_PROVIDER,
    "clip": FREE_PROVIDER,
    "mock": FREE_PROVIDER,
}


def provider_of(class_name: str, model: str = "") -> str:
    """Give the provider of a LlamaIndex class; empty when unknown, so that the model name alone decides.

    The longest known beginning wins: ``OpenAILike`` may be anyone's server and stays unknown.

    Example:
        >>> provider_of("openai_llm"), provider_of("AzureOpenAIEmbedding"), provider_of("Weird")
        ('openai', 'azure', '')
    """
    plain = class_name.replace("_", "").replace("-", "").lower()
    starts = [start for start in _PROVIDERS if plain.startswith(start)]
    return _PROVIDERS[max(starts, key=len)] if starts else ""


def reranker_model(instance: Any) -> str:
    """Give the model name of a reranker, under whichever name it keeps it."""
    for name in ("model_name", "model", "_model_name"):
        if isinstance(value := getattr(instance, name, None), str):
            return value
    return ""
