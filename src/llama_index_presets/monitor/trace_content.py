"""What of a text may leave in a trace: a keyed hash and its length, the text itself, or nothing. Pure."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Callable
from typing import Final, Literal, get_args

from llama_index_presets.errors import SettingsError

__all__ = ["CONTENTS", "Content", "Redactor", "keyed_hash"]

Content = Literal["hash", "text", "none"]
"""``"hash"``: a keyed hash and the length; ``"text"``: the text in clear; ``"none"``: no trace of it."""

CONTENTS: Final[tuple[str, ...]] = get_args(Content)
_SHOWN: Final = 16
_MOST_CHARS: Final = 20_000
_LONGEST_LABEL: Final = 128
_LABEL: Final = re.compile(r"[\w.:@+=/ -]+")
_MACHINE_ID: Final = re.compile(r"[0-9a-f]{24,64}")


class Redactor:
    """Applies one choice to every text.

    Args:
        content: The choice.
        hash_text: Text -> hex digest; None takes a key of its own, so that digests match within this process only.

    Raises:
        SettingsError: There is no such choice.

    Example:
        >>> Redactor("hash", lambda text: "ab" * 32).text("Ada Lovelace")
        'sha256:abababababababab, 12 characters'
        >>> Redactor("text").text("Ada"), Redactor("none").text("Ada")
        ('Ada', None)
    """

    def __init__(self, content: Content = "hash", hash_text: Callable[[str], str] | None = None) -> None:
        if content not in CONTENTS:
            raise SettingsError(f"content is '{content}'. Expected one of {', '.join(CONTENTS)}.")
        self.content = content
        self._hash = hash_text or keyed_hash(secrets.token_bytes(32))

    @property
    def clear(self) -> bool:
        """Whether texts leave in clear."""
        return self.content == "text"

    def text(self, text: object) -> str | None:
        """Give what may leave of a text; None where nothing may."""
        if not isinstance(text, str) or self.content == "none":
            return None
        if self.clear:
            return text[:_MOST_CHARS].encode("utf-8", "replace").decode()
        return f"sha256:{self._hash(text)[:_SHOWN]}, {len(text):,} characters"

    def identifier(self, name: object) -> str | None:
        """Give an id of a node or document: ids made by a machine as they are, others, such as paths, as texts.

        Example:
            >>> Redactor("hash", lambda text: "ab" * 32).identifier("patients/ada.txt")
            'sha256:abababababababab'
        """
        if not isinstance(name, str):
            return None
        if self.clear:
            return name[:_MOST_CHARS].encode("utf-8", "replace").decode()
        if _MACHINE_ID.fullmatch(name.replace("-", "")) and not name.isdecimal():
            return name
        return f"sha256:{self._hash(name)[:_SHOWN]}"


def keyed_hash(key: bytes) -> Callable[[str], str]:
    """Make a keyed SHA-256: equal texts have equal digests, and none can be found by trying texts without the key."""
    return lambda text: hmac.new(key, text.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()


def label(value: object) -> str | None:
    """Give a short plain name as it is; None for anything that is not one.

    Example:
        >>> label("gpt-4o-mini"), label("x" * 500), label(7)
        ('gpt-4o-mini', None, None)
    """
    if isinstance(value, str) and len(value) <= _LONGEST_LABEL and _LABEL.fullmatch(value):
        return value
    return None


def model_label(value: object) -> str | None:
    """Give the name of a model; of a path on this machine only the last part, since folders name people.

    Example:
        >>> model_label("/srv/models/reranker"), model_label("cross-encoder/ms-marco-MiniLM-L6-v2")
        ('reranker', 'cross-encoder/ms-marco-MiniLM-L6-v2')
    """
    if not isinstance(value, str):
        return None
    local = value.startswith(("/", ".", "~")) or value.count("/") > 1 or "\\" in value
    return label(re.split(r"[/\\]", value.rstrip("/\\"))[-1]) if local else label(value)
