"""Permissions of documents: who may see one, where that is taken from, and the filter of a user.

A document says ``allowed``: names of groups, and ``user:NAME`` for users. In the store each of its nodes carries the
list under `ALLOWED_KEY`, which no document, metadata or earlier release can have written: what a storage held before
its permissions were turned on is seen by nobody.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from llama_index.core.schema import BaseNode
from llama_index.core.vector_stores.types import FilterOperator, MetadataFilter, MetadataFilters

from llama_index_presets.errors import IngestError, SettingsError
from llama_index_presets.ingest.chunking.chunk import SourceText
from llama_index_presets.ingest.images import Picture
from llama_index_presets.ingest.metadata.document_metadata import ALLOWED, ALLOWED_KEY, allowed_beside
from llama_index_presets.ingest.sources.source import Source

__all__ = [
    "Permissions",
    "check_names",
    "names_of",
    "principals",
    "put_names",
    "sees",
    "visible_to",
]

_USER: Final = "user:"
_NOBODY: Final = (_USER,)  # the user without a name, whom `principals` never gives


def names_of(value: Any) -> tuple[str, ...]:
    """Names that an ``allowed`` field gives: a list, or text with commas; empty for nobody.

    Raises:
        IngestError: It is neither, or a name is no text.

    Example:
        >>> names_of("hr, user:ada"), names_of(["all"]), names_of(None)
        (('hr', 'user:ada'), ('all',), ())
    """
    given = value.split(",") if isinstance(value, str) else () if value is None else value
    if not isinstance(given, list | tuple | set | frozenset) or not all(
        isinstance(one, str) for one in given
    ):
        raise IngestError(
            f"'{ALLOWED}' is {str(value)[:80]!r}; expected names of groups, and user:NAME for users: a list, or text "
            "with commas. Until it is corrected, the document is not ingested."
        )
    names = dict.fromkeys(name.strip() for one in given for name in one.split(","))
    return tuple(name for name in names if name and name != _USER)


def check_names(allowed: Any) -> tuple[str, ...]:
    """Names that a caller gives in code or on the command line.

    Raises:
        SettingsError: They are none.
    """
    try:
        return names_of(allowed)
    except IngestError as error:
        raise SettingsError(f"{ALLOWED} is {str(allowed)[:80]!r}; expected a list of names.") from error


def principals(user: str, groups: Iterable[str]) -> frozenset[str]:
    """Names by which documents may allow a user.

    Raises:
        SettingsError: There is neither user nor group, or a name could mean another.

    Example:
        >>> sorted(principals("ada", ["hr"]))
        ['hr', 'user:ada']
    """
    if not isinstance(user, str):
        raise SettingsError(f"The user is {user!r}, expected a text.")
    if not isinstance(groups, Iterable):
        raise SettingsError(f"groups is {groups!r}, expected a list of texts.")
    listed = [groups] if isinstance(groups, str) else list(groups)
    for group in listed:
        if (
            not isinstance(group, str)
            or group != group.strip()
            or not group
            or "," in group
            or group.startswith(_USER)
        ):
            raise SettingsError(
                f"The group {group!r} is not usable: a name without commas and outer spaces that does not begin with "
                f"'{_USER}'."
            )
    if user != user.strip() or "," in user:
        raise SettingsError(f"The user {user!r} is not usable: a name has no commas and outer spaces.")
    if not user and not listed:
        raise SettingsError(
            "as_user got neither user nor groups. Give one, or everything=True with the user who is to see everything."
        )
    return frozenset([*listed, *([_USER + user] if user else [])])


def visible_to(names: Iterable[str]) -> MetadataFilters:
    """Filters that select the nodes of documents that allow one of these names."""
    wanted = MetadataFilter(key=ALLOWED_KEY, operator=FilterOperator.ANY, value=sorted(names))
    return MetadataFilters(filters=[wanted])


def sees(names: Iterable[frozenset[str]], metadata: Mapping[str, Any]) -> bool:
    """Whether the metadata of a node allows one name of each set; only a list of names allows anybody.

    Example:
        >>> sees([frozenset({"hr"})], {ALLOWED_KEY: ["hr", "all"]}), sees([frozenset({"hr"})], {ALLOWED_KEY: "hr"})
        (True, False)
    """
    allowed = metadata.get(ALLOWED_KEY)
    return isinstance(allowed, list) and all(any(name in some for name in allowed) for some in names)


@dataclass(frozen=True, slots=True, kw_only=True)
class Permissions:
    """Permissions that one run puts on documents; a plain value, so that it can be sent to workers.

    The first of these that says something holds: the caller of the run, `overrides`, the `trusted` origins, `default`.
    In the run of a user, `overrides` come first.

    Attributes:
        trusted: Of `values.PERMISSION_ORIGINS`.
        overrides: Document -> names, as `PresetEngine.set_permissions` has set them.
        default: Names for documents of which nobody says anything; empty for nobody.
        of_user: Whether a user's view ingests.
    """

    trusted: Sequence[str] = ()
    overrides: Mapping[str, Sequence[str]] = field(default_factory=dict)
    default: Sequence[str] = ()
    of_user: bool = False

    def over(self, source: Source, put: Mapping[str, Any]) -> Source:
        """A source whose nodes carry its permissions and nothing else under `ALLOWED_KEY`.

        Args:
            source: The document.
            put: What the caller of the run puts on it, `ALLOWED` or not.

        Raises:
            SettingsError: The caller's ``allowed`` is no list of names.
        """
        given = check_names(put[ALLOWED]) if ALLOWED in put else None
        # Not the overrides: changing permissions makes no document a changed one.
        rule = json.dumps([sorted(self.trusted), sorted(self.default), given, self.of_user])
        digest = source.content_hash and hashlib.sha256(f"{source.content_hash}\0{rule}".encode()).hexdigest()
        return replace(source, content_hash=digest, read=lambda: self._read(source, given, digest))

    def _read(self, source: Source, given: tuple[str, ...] | None, digest: str) -> Any:
        found = source.read()
        override = self.overrides.get(source.doc_id)
        first = (override, given) if self.of_user else (given, override)
        fixed = next((names for names in first if names is not None), None)

        def names(metadata: Mapping[str, Any]) -> Sequence[str]:
            return fixed if fixed is not None else self._own(source, metadata)

        if isinstance(found, SourceText):
            return _on_text(found, names(found.metadata), digest)
        if isinstance(found, Picture):
            kept = names(found.node.metadata)
            put_names(found.node, kept)
            return replace(found, caption=found.caption and _on_text(found.caption, kept, digest))
        for node in found:
            put_names(node, names(node.metadata))
        return found

    def _own(self, source: Source, metadata: Mapping[str, Any]) -> Sequence[str]:
        """What the trusted origins say."""
        if source.file is None:
            said = metadata.get(ALLOWED) if source.allowed is None else source.allowed
            return names_of(said) if "source" in self.trusted and said is not None else self.default
        if source.allowed is not None and "source" in self.trusted:
            return names_of(source.allowed)
        beside = allowed_beside(source.file)
        if beside is not None:
            return names_of(beside) if "sidecar" in self.trusted else self.default
        said = metadata.get(ALLOWED) if "front-matter" in self.trusted else None
        return self.default if said is None else names_of(said)


def _on_text(text: SourceText, names: Sequence[str], digest: str) -> SourceText:
    return replace(
        text,
        metadata=_with_names(text.metadata, names),
        hidden_from_embedding=(*text.hidden_from_embedding, ALLOWED_KEY),
        hidden_from_llm=(*text.hidden_from_llm, ALLOWED_KEY),
        content_hash=digest,
    )


def put_names(node: BaseNode, names: Sequence[str]) -> None:
    """Let a node be seen by these names only; its embedded text, and so its vector, stays what it is."""
    node.metadata = _with_names(node.metadata, names)
    for keys in (node.excluded_embed_metadata_keys, node.excluded_llm_metadata_keys):
        if ALLOWED_KEY not in keys:
            keys.append(ALLOWED_KEY)


def _with_names(metadata: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    kept = {key: value for key, value in metadata.items() if key != ALLOWED}
    return {**kept, ALLOWED_KEY: list(names or _NOBODY)}
