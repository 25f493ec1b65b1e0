"""Table of the providers of language models: class, extra, variables, and what each calls the options."""

from __future__ import annotations

from typing import Final

from llama_index_presets.monitor.prices import FREE_PROVIDER
from llama_index_presets.providers.names import Provider

__all__ = ["PROVIDERS"]

_OPENAI_NAMES: Final = {
    "endpoint": "api_base",
    "timeout_s": "timeout",
    "headers": "default_headers",
}

PROVIDERS: Final[dict[str, Provider]] = {
    "openai": Provider(
        about="OpenAI",
        module="llama_index_presets.providers.openai_llm",
        kind="OpenAI",
        extra="openai",
        keys=("OPENAI_API_KEY",),
        endpoints=("OPENAI_BASE_URL", "OPENAI_API_BASE"),
        # behind our own class stands the official one, which may be missing
        packages=("llama_index.llms.openai",),
        bare=("gpt-", "chatgpt-", "o1", "o3", "o4"),
        names=_OPENAI_NAMES,
        prices="openai",
    ),
    "azure": Provider(
        about="a deployment at Azure OpenAI",
        module="llama_index.llms.azure_openai",
        kind="AzureOpenAI",
        extra="azure",
        keys=("AZURE_OPENAI_API_KEY",),
        endpoints=("AZURE_OPENAI_ENDPOINT",),
        names={**_OPENAI_NAMES, "model": "engine", "endpoint": "azure_endpoint"},
        variables={"OPENAI_API_VERSION": "api_version"},
        prices="azure",
    ),
    "anthropic": Provider(
        about="Anthropic",
        module="llama_index.llms.anthropic",
        kind="Anthropic",
        extra="anthropic",
        keys=("ANTHROPIC_API_KEY",),
        endpoints=("ANTHROPIC_BASE_URL",),
        bare=("claude-",),
        names={"endpoint": "base_url", "timeout_s": "timeout", "headers": "default_headers"},
        prices="anthropic",
    ),
    "gemini": Provider(
        about="Google Gemini",
        module="llama_index.llms.google_genai",
        kind="GoogleGenAI",
        extra="gemini",
        keys=("GOOGLE_API_KEY", "GEMINI_API_KEY"),
        endpoints=("GOOGLE_GEMINI_BASE_URL",),
        bare=("gemini-",),
        names={"endpoint": "base_url", "timeout_s": "timeout"},
        fixed={"max_tokens": 8_192},  # without one, the class asks Google for the model as soon as it is made
        prices="google",
    ),
    "mistral": Provider(
        about="Mistral",
        module="llama_index.llms.mistralai",
        kind="MistralAI",
        extra="mistral",
        keys=("MISTRAL_API_KEY",),
        endpoints=("MISTRAL_ENDPOINT",),
        bare=("mistral-", "ministral-", "codestral-", "magistral-"),
        names={"timeout_s": "timeout", "headers": ""},
        prices="mistral",
    ),
    "groq": Provider(
        about="Groq",
        module="llama_index.llms.groq",
        kind="Groq",
        extra="groq",
        keys=("GROQ_API_KEY",),
        endpoints=("GROQ_BASE_URL",),
        names=_OPENAI_NAMES,
        prices="groq",
    ),
    "deepseek": Provider(
        about="DeepSeek",
        module="llama_index.llms.deepseek",
        kind="DeepSeek",
        extra="deepseek",
        keys=("DEEPSEEK_API_KEY",),
        bare=("deepseek-",),
        names=_OPENAI_NAMES,
        prices="deepseek",
    ),
    "bedrock": Provider(
        about="Amazon Bedrock",
        module="llama_index.llms.bedrock_converse",
        kind="BedrockConverse",
        extra="bedrock",
        endpoints=("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", "AWS_ENDPOINT_URL"),
        names={"endpoint": "endpoint_url", "timeout_s": "timeout", "headers": ""},
        prices="aws",
    ),
    "ollama": Provider(
        about="Ollama",
        module="llama_index.llms.ollama",
        kind="Ollama",
        extra="ollama",
        endpoints=("OLLAMA_HOST",),
        endpoint="http://localhost:11434",
        names={"endpoint": "base_url", "timeout_s": "request_timeout", "max_tokens": "num_predict"},
        prices=FREE_PROVIDER,
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
        on_this_machine=True,
        prices=FREE_PROVIDER,
    ),
    "smollm2": Provider(
        about="SmolLM2 135M, a weak model in this process, for trying the whole path",
        module="llama_index_presets.providers.smollm2",
        kind="SmolLM2",
        extra="smollm2",
        packages=("transformers", "gguf"),
        names={"endpoint": "", "timeout_s": "", "headers": "", "api_key": ""},
        on_this_machine=True,
        prices=FREE_PROVIDER,
    ),
    "http": Provider(
        about="a server of OpenAI's protocol",
        module="llama_index.llms.openai_like",
        kind="OpenAILike",
        extra="openai-like",
        names=_OPENAI_NAMES,
        fixed={"is_chat_model": True, "is_function_calling_model": True},
    ),
}
"""Name before the slash -> provider; ``http`` stands for every ``http://…#model``."""
