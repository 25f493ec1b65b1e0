"""API keys held in memory only: absent from representations, copies and pickles."""

from __future__ import annotations

import os
from typing import Any, Final

__all__ = ["SECRET_FIELDS", "HidesKey"]

SECRET_FIELDS: Final = ("api_key", "default_headers")
"""Fields that hold a key, or headers that may. Their classes also declare them with ``repr=False, exclude=True``."""

_CLIENTS: Final = ("_client", "_aclient", "_http_client", "_async_http_client")
"""Private attributes with SDK clients, which hold the key and open connections."""


class HidesKey:
    """Mix-in before an OpenAI class of LlamaIndex; that class has the fields of `SECRET_FIELDS`.

    A pickle carries neither the key nor the clients: where it is opened, the key comes from the environment
    (``OPENAI_API_KEY``), and the first call without one says so. A fork opens connections of its own, since an
    answer over a shared one could reach the wrong process.
    """

    _process: int  # which has made the clients

    def __getstate__(self) -> dict[str, Any]:
        held: Any = super().__getstate__()
        state = dict(held)
        state["__dict__"] = _without(state["__dict__"], SECRET_FIELDS)
        state["__pydantic_private__"] = _without(
            state["__pydantic_private__"] or {}, (*_CLIENTS, "_process", "_loop")
        )
        return state

    def _get_client(self) -> Any:
        self._leave_connections_to_the_parent()
        return super()._get_client()  # type: ignore[misc]

    def _get_aclient(self) -> Any:
        self._leave_connections_to_the_parent()
        return super()._get_aclient()  # type: ignore[misc]

    def _leave_connections_to_the_parent(self) -> None:
        if self._process != os.getpid():
            for name in ("_client", "_aclient"):
                setattr(self, name, None)
            self._process = os.getpid()


def _without(attributes: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: value for name, value in attributes.items() if name not in names}
