"""Which texts go out together, and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llama_index_presets.errors import PartialEmbeddingError, PresetsError

__all__ = ["Outcome", "requests_of"]

_REFUSED = frozenset({401, 403})


def requests_of(
    texts: Sequence[str], *, most_texts: int, most_tokens: int, count: Callable[[Sequence[str]], list[int]]
) -> list[list[int]]:
    """Fill requests with texts, in order.

    Args:
        texts: The texts.
        most_texts: Most texts of a request, >= 1.
        most_tokens: Most tokens of a request; a longer text gets one of its own.
        count: Counts tokens; asked only where the bytes of the texts do not rule an excess out.

    Returns:
        Positions of the texts of each request.

    Example:
        >>> requests_of(["a b", "c", "d"], most_texts=2, most_tokens=10, count=lambda texts: [2, 1, 1])
        [[0, 1], [2]]
    """
    sizes = [len(text.encode("utf-8", "surrogatepass")) for text in texts]  # a token is at least a byte
    heaviest = (
        max((sum(sizes[start : start + most_texts]) for start in range(len(texts))), default=0)
        if (sum(sizes) > most_tokens)
        else 0
    )
    tokens = count(texts) if heaviest > most_tokens else sizes
    requests: list[list[int]] = []
    room = 0
    for place, size in enumerate(tokens):
        if not requests or len(requests[-1]) == most_texts or size > room:
            requests.append([])
            room = most_tokens
        requests[-1].append(place)
        room -= size
    return requests


class Outcome:
    """What came of the requests of one batch; not thread safe, filled by one thread.

    Args:
        texts: All texts of the batch.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = len(texts)
        self._vectors: dict[int, list[float]] = {}
        self._errors: list[BaseException] = []

    @property
    def hopeless(self) -> bool:
        """Whether the rest will fail as well: the key or the budget was refused."""
        return any(
            isinstance(error, PresetsError)
            or getattr(error, "status_code", None) in _REFUSED
            or getattr(error, "code", None) == "insufficient_quota"
            for error in self._errors
        )

    def take(self, places: Sequence[int], result: list[list[float]] | BaseException) -> None:
        """Note the vectors of one request, or the error that ended it."""
        if isinstance(result, BaseException):
            self._errors.append(result)
        else:
            self._vectors.update(zip(places, result, strict=True))

    def vectors(self, without_secrets: Callable[[str], str]) -> list[list[float]]:
        """Give all vectors, in order.

        Raises:
            PartialEmbeddingError: Some requests failed; from the first error.
            PresetsError: That error itself, when no request succeeded and it is one of this package.
        """
        if not self._errors:
            return [self._vectors[place] for place in range(self._texts)]
        first = self._errors[0]
        if isinstance(first, PresetsError) and not self._vectors:
            raise first
        failed = [place for place in range(self._texts) if place not in self._vectors]
        reason = without_secrets(str(first).partition("\n")[0])[:300]
        raise PartialEmbeddingError(
            f"{len(failed):,} of {self._texts:,} texts were not embedded: {type(first).__name__}: {reason} "
            "Run it again: with an embedding cache, only these are sent.",
            vectors=self._vectors,
            failed=failed,
        ) from first
