"""Error tree: every error this package raises on purpose.

    PresetsError
    ├── MissingExtraError (ImportError)      an optional package is not installed; carries the install line
    ├── SettingsError (ValueError)           a name or value given by the caller is wrong
    │   ├── UnknownPresetError               no such preset; names the nearest
    │   ├── UnknownOptionError (TypeError)   no such keyword argument; names the nearest
    │   └── WrongTypeError (TypeError)       an argument is of another type than it takes; names it
    ├── FilterError (ValueError)             a metadata filter cannot be expressed
    ├── StoreError (RuntimeError)            a vector store cannot do what was asked
    │   ├── StoreLockedError                 another process holds the file; names the pid
    │   ├── StoreCorruptError                the files cannot be read; nothing was touched
    │   ├── StoreUnavailableError            its files are gone or closed to us, or its database cannot be reached
    │   ├── StoreWriteError                  the folder or file cannot be written
    │   ├── NodeRejectedError (ValueError)   a node cannot be stored; names the ids, nothing was written
    │   ├── QueryError (ValueError)          a query cannot be run as asked
    │   ├── EncryptionError                  encrypted data cannot be opened: no key, wrong key, or altered
    │   └── FingerprintError (ValueError)    index and caller use different models
    ├── IngestError (RuntimeError)           documents could not be ingested
    ├── ImageError (ValueError)              an image cannot be read; names the file
    ├── ModelError (RuntimeError)            a model cannot be found, verified or run
    │   ├── ModelReplyError                  a hosted model said success and gave no answer; tried again
    │   └── PartialEmbeddingError            some texts of a batch were embedded, others failed
    ├── RetrievalError (RuntimeError)        a retriever leg failed
    ├── RankingError (ValueError)            rankings, weights or parameters do not fit
    ├── RerankError (RuntimeError)           a reranker cannot score
    ├── AnswerError (ValueError)             a question cannot be answered as asked
    ├── PermissionsError (RuntimeError)      nothing may be shown: no user, or one who may not do this
    ├── ServeError (RuntimeError)            a server cannot be started
    └── MonitorError (RuntimeError)          ledger, audit log or traces
        ├── BudgetExceededError              refused before the call; limit, spent, reset time
        └── AuditError                       the audit log does not verify

A message states the fact with its values, then what was expected, then what to do next; the values are
attributes too, where a program would want them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

__all__ = [
    "AnswerError",
    "AuditError",
    "BudgetExceededError",
    "EncryptionError",
    "FilterError",
    "FingerprintError",
    "ImageError",
    "IngestError",
    "MissingExtraError",
    "ModelError",
    "ModelReplyError",
    "MonitorError",
    "NodeRejectedError",
    "PartialEmbeddingError",
    "PermissionsError",
    "PresetsError",
    "QueryError",
    "RankingError",
    "RerankError",
    "RetrievalError",
    "ServeError",
    "SettingsError",
    "StoreCorruptError",
    "StoreError",
    "StoreLockedError",
    "StoreUnavailableError",
    "StoreWriteError",
    "UnknownOptionError",
    "UnknownPresetError",
    "WrongTypeError",
]


class PresetsError(Exception):
    """Root of the tree: catch this to catch everything raised on purpose.

    An error can be pickled and copied, so it arrives whole from a worker process.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        """Message and attributes, since a constructor may take the parts of the message instead."""
        return _as_it_was, (type(self), self.args, dict(self.__dict__))


def _as_it_was(kind: type[PresetsError], args: tuple[Any, ...], attributes: dict[str, Any]) -> PresetsError:
    error = kind.__new__(kind)
    # Of ImportError, ValueError, …, which keep the message themselves.
    super(PresetsError, error).__init__(*args)
    error.__dict__.update(attributes)
    return error


class MissingExtraError(PresetsError, ImportError):
    """An optional package is needed and not installed.

    Attributes:
        package: The distribution that is missing.
        extra: The extra of llama-index-presets that brings it.
        install: The command that installs it.
    """

    def __init__(self, package: str, extra: str, otherwise: str = "") -> None:
        self.package = package
        self.extra = extra
        self.install = f'pip install "llama-index-presets[{extra}]"'
        super().__init__(f"{package} is not installed. Run: {self.install}{otherwise and f'; {otherwise}'}")


class SettingsError(PresetsError, ValueError):
    """A name or value given by the caller is wrong."""


class UnknownPresetError(SettingsError):
    """No preset has this name.

    Attributes:
        name: What was asked for.
        nearest: The closest known name, or None.
    """

    def __init__(self, name: str, known: list[str], nearest: str | None) -> None:
        self.name = name
        self.nearest = nearest
        hint = (
            f"Did you mean '{nearest}'?"
            if nearest
            else (
                f"Choose one of: {', '.join(known)}; `llama-presets recommend` finds the one for a case in words."
            )
        )
        super().__init__(f"There is no preset '{name}'. {hint}")


class UnknownOptionError(SettingsError, TypeError):
    """A keyword argument is not known; nothing was done.

    Attributes:
        nearest: Each unknown name -> the known name that it is closest to, or None.
    """

    def __init__(self, owner: str, nearest: Mapping[str, str | None], known: Iterable[str]) -> None:
        self.nearest = dict(nearest)
        hints = [
            f"'{name}': did you mean '{close}'?" if close else f"'{name}'." for name, close in nearest.items()
        ]
        takes = "" if all(nearest.values()) else f" It takes: {', '.join(known) or 'no option'}."
        super().__init__(f"{owner} does not know {' Nor '.join(hints)}{takes}")


class WrongTypeError(SettingsError, TypeError):
    """An argument is of another type than it takes; nothing was done."""


class FilterError(PresetsError, ValueError):
    """A metadata filter cannot be expressed."""


class StoreError(PresetsError, RuntimeError):
    """A vector store cannot do what was asked."""


class StoreLockedError(StoreError):
    """Another process holds the store's file.

    Attributes:
        pid: The process that holds it, where the database tells, else None.
    """

    def __init__(self, message: str, pid: int | None = None) -> None:
        self.pid = pid
        super().__init__(message)


class StoreCorruptError(StoreError):
    """The store's files cannot be read; nothing was touched."""


class StoreUnavailableError(StoreError):
    """The store cannot be reached now: its files are gone or closed to us, or its database does not answer."""


class StoreWriteError(StoreError):
    """The store's folder or file cannot be written."""


class NodeRejectedError(StoreError, ValueError):
    """Nodes cannot be stored; nothing of the call was written.

    Attributes:
        node_ids: The ids of the refused nodes.
    """

    def __init__(self, message: str, node_ids: list[str]) -> None:
        self.node_ids = node_ids
        super().__init__(message)


class QueryError(StoreError, ValueError):
    """A query cannot be run as asked."""


class EncryptionError(StoreError):
    """Encrypted data cannot be opened: the key is missing or another one, or the data was altered."""


class FingerprintError(StoreError, ValueError):
    """The index was made by another model than the one in use.

    Attributes:
        stored: The fingerprint the index remembers.
        given: The fingerprint of the caller.
    """

    def __init__(self, message: str, *, stored: str, given: str) -> None:
        self.stored = stored
        self.given = given
        super().__init__(message)


class IngestError(PresetsError, RuntimeError):
    """Documents could not be ingested."""


class ImageError(PresetsError, ValueError):
    """An image cannot be read: missing, damaged, of an unknown format, or too large.

    Attributes:
        source: Its path, or what it was given as (such as ``"bytes"``).
    """

    def __init__(self, source: str, problem: str) -> None:
        self.source = source
        super().__init__(f"The image '{source}' {problem}")


class ModelError(PresetsError, RuntimeError):
    """A model cannot be found, verified or run."""


class ModelReplyError(ModelError):
    """A hosted model replied with success and without an answer or vectors. A retry can help.

    Attributes:
        model: Its name.
        usage: What the reply says that it used, and the provider bills; None where it says nothing.
        status_code: The status that the reply has in its body, such as 502; None where it has none.
    """

    def __init__(
        self, message: str, *, model: str, usage: Any = None, status_code: int | None = None
    ) -> None:
        self.model = model
        self.usage = usage
        self.status_code = status_code
        super().__init__(message)


class PartialEmbeddingError(ModelError):
    """Some texts of a batch could not be embedded; what was paid for is here.

    Attributes:
        vectors: Position of a text -> its vector, for the texts that were embedded.
        failed: Positions of the texts that were not, in order.
    """

    def __init__(self, message: str, *, vectors: dict[int, list[float]], failed: list[int]) -> None:
        self.vectors = vectors
        self.failed = failed
        super().__init__(message)


class RetrievalError(PresetsError, RuntimeError):
    """A retriever, or one leg of it, failed."""


class RankingError(PresetsError, ValueError):
    """Rankings, weights or parameters do not fit together."""


class RerankError(PresetsError, RuntimeError):
    """A reranker cannot score what it was given."""


class AnswerError(PresetsError, ValueError):
    """A question cannot be answered as asked."""


class PermissionsError(PresetsError, RuntimeError):
    """A storage has permissions, and the engine has no user, or one who may not do what was asked."""


class ServeError(PresetsError, RuntimeError):
    """A server cannot be started: its address is taken or not this machine's."""


class MonitorError(PresetsError, RuntimeError):
    """The ledger, the audit log, the alerts or the traces cannot do what was asked."""


class BudgetExceededError(MonitorError):
    """A call was refused before it was made, because a budget would be exceeded.

    Attributes:
        limit_usd: The limit, or None when the model has no known price.
        spent_usd: What the period has cost so far.
        held_usd: What is held for calls under way.
        estimate_usd: What the refused call might have cost.
        resets_at: End of the period (UTC), or None where it does not end by time.
    """

    limit_usd: Decimal | None = None
    spent_usd: Decimal = Decimal(0)
    held_usd: Decimal = Decimal(0)
    estimate_usd: Decimal = Decimal(0)
    resets_at: datetime | None = None


class AuditError(MonitorError):
    """The audit log does not verify."""
