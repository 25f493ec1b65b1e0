"""Reaching a Weaviate server."""

from __future__ import annotations

import os
from typing import Any

import weaviate
from weaviate.exceptions import WeaviateBaseError

from llama_index_presets.errors import StoreError

__all__ = ["connect", "shown"]


def shown(url: str) -> str:
    """Give a URL without user, password and options."""
    return url.split("?")[0].split("@")[-1]


def connect(host: str, port: int | None, asked: dict[str, list[str]], api_key: str | None) -> Any:
    """Open a client.

    Args:
        host: Name of the server.
        port: Of its REST interface; None for the usual one.
        asked: Options of the URL: ``grpc``, ``secure``.
        api_key: Else ``WEAVIATE_API_KEY``, else none.

    Raises:
        StoreError: The server cannot be reached.
    """
    key = api_key or os.environ.get("WEAVIATE_API_KEY") or None
    cloud = host.endswith((".weaviate.cloud", ".weaviate.network"))
    secure = cloud or asked.get("secure", ["false"])[0] == "true"
    grpc_host = f"grpc-{host}" if cloud else host
    credentials = weaviate.auth.AuthApiKey(key) if key else None
    try:
        # The client's own initial checks ask PyPI for the newest version; nothing of that kind happens here.
        return weaviate.connect_to_custom(
            http_host=host,
            http_port=port or (443 if secure else 8080),
            http_secure=secure,
            grpc_host=grpc_host,
            grpc_port=int(asked.get("grpc", ["443" if secure else "50051"])[0]),
            grpc_secure=secure,
            auth_credentials=credentials,
            skip_init_checks=True,
        )
    except WeaviateBaseError as error:
        said = str(error).split("\n")[0][:300]
        raise StoreError(
            f"Weaviate at {host} cannot be reached: {said}. Start the server or check the URL."
        ) from error
