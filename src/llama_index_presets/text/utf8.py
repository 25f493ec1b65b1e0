"""UTF-8 validation of text: a lone surrogate, half of a UTF-16 pair, is refused by name."""

from __future__ import annotations

from collections.abc import Iterable

from llama_index_presets._options import expect_each
from llama_index_presets.errors import NodeRejectedError, SettingsError

__all__ = ["check_ids", "check_name", "has_utf8", "printable"]


def has_utf8(text: str) -> bool:
    """Whether a text has a UTF-8 form.

    Example:
        >>> has_utf8("ü"), has_utf8("\\ud800")
        (True, False)
    """
    try:
        text.isascii() or text.encode()
    except UnicodeEncodeError:
        return False
    return True


def printable(text: str) -> str:
    r"""Escape what has no UTF-8 form, so that a message can be printed.

    Example:
        >>> printable("a\ud800b")
        'a\\ud800b'
    """
    return text.encode(errors="backslashreplace").decode()


def check_ids(ids: Iterable[str] | None, what: str) -> None:
    """Refuse ids without a UTF-8 form, which no store can hold.

    Args:
        ids: Of nodes or documents; None is fine.
        what: ``"node"`` or ``"document"``, for the message.

    Raises:
        WrongTypeError: They are no list of texts.
        NodeRejectedError: Names them, with what has no UTF-8 form escaped.
    """
    if ids is None:
        return
    given = expect_each(f"The {what} ids", ids, str, "a list of them, each a text")
    bad = [name for name in given if not has_utf8(name)]
    if bad:
        named = ", ".join(f"'{printable(name)}'" for name in bad[:5]) + (" …" if len(bad) > 5 else "")
        raise NodeRejectedError(
            f"The {what} id {named} has a lone surrogate, which has no UTF-8 form, so no store can hold it. "
            "Nothing was written or deleted. Make ids of valid text: id.encode(errors='backslashreplace').decode().",
            bad,
        )


def check_name(what: str, name: str) -> None:
    """Refuse a name of a table, index or namespace that no database takes.

    Raises:
        SettingsError: It is empty, no string, has a control character such as NUL, or has no UTF-8 form.
    """
    if isinstance(name, str) and not has_utf8(name):
        raise SettingsError(
            f"{what} is {printable(repr(name))}, which is not UTF-8; rename it, or set a UTF-8 locale (LANG=C.UTF-8)."
        )
    if not isinstance(name, str) or not name or not name.isprintable():
        raise SettingsError(
            f"{what} is {printable(repr(name))}; give a name of at least one character, without control characters."
        )
