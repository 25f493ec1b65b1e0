"""Audit log: one entry a query, chained by HMAC, so that edits, deletions and reorderings show.

Each entry carries the HMAC of itself and of the entry before it, made with a key that the operator holds.
Who lacks the key cannot change, remove or swap an entry without `verify` finding it. Removing the *newest*
entries leaves a shorter chain that is whole in itself. The head recorded beside the log shows that where it was an
accident; against somebody who removes both, compare the log with a head that was exported before (`AuditLog.head`).
POSIX only; needs no LlamaIndex.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, NoReturn

from llama_index_presets.counting import counted
from llama_index_presets.errors import AuditError, MonitorError, SettingsError
from llama_index_presets.files.disk_faults import BINARY, is_full, write_all
from llama_index_presets.files.private_files import configuration_file, private_file
from llama_index_presets.files.whole_files import create_file
from llama_index_presets.monitor.ledger.journal import locked

__all__ = [
    "AUDIT_KEY",
    "AuditEntry",
    "AuditHead",
    "AuditLog",
    "AuditReport",
    "audit_key",
    "audit_key_file",
    "no_log",
    "verify",
]

_GENESIS: Final = "0" * 64
_SHORTEST_KEY: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """Audit entry of one query: hashes, never the text.

    Attributes:
        who: User or service that asked.
        preset: Preset that answered.
        model: Model that answered.
        query_id: Joins the entry with the ledger.
        prompt_hmac: Keyed hash of the question.
        passages: Id and SHA-256 of each passage shown to the model, in order, then of those that only the reader was
            shown, beside an "I don't know".
        answer_hmac: Keyed hash of the answer.
        cost_usd: What the query cost, as decimal text; empty when it is not known.
        when: Time of the entry, ISO 8601, UTC.
        number: Place in the log, from 1.
        status: What became of the question: ``"answered"``, ``"abandoned"``, ``"degraded: STAGE ERROR"`` (an
            apology) or ``"failed: ERROR"``.
    """

    who: str
    preset: str
    model: str
    query_id: str
    prompt_hmac: str
    passages: tuple[tuple[str, str], ...]
    answer_hmac: str
    cost_usd: str
    when: str
    number: int
    status: str = "answered"


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditHead:
    """Head of the chain at a moment: keep it where the log's writer cannot reach.

    Attributes:
        number: How many entries the log had.
        mac: HMAC of the last one, in hex; 64 zeros for an empty log.
    """

    number: int
    mac: str

    def save(self, path: str | Path) -> None:
        """Write the head as JSON."""
        Path(path).write_text(json.dumps(asdict(self)) + "\n", "utf-8")

    @classmethod
    def load(cls, path: str | Path) -> AuditHead:
        """Read a head that `save` wrote.

        Raises:
            AuditError: The file is no head.
        """
        try:
            content = json.loads(Path(path).read_text("utf-8"))
            return cls(number=int(content["number"]), mac=str(content["mac"]))
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise AuditError(
                f"'{path}' is no exported head: {error!r}. Expected JSON with number and mac."
            ) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditReport:
    """Result of `verify`.

    Attributes:
        ok: Whether the chain is whole, and reaches the head where one was given.
        entries: How many entries were read.
        first_bad: Line of the first fault, from 1; None when there is none.
        reason: What is wrong; empty when nothing is.
        head: The end of the chain, to be exported.
    """

    ok: bool
    entries: int
    first_bad: int | None
    reason: str
    head: AuditHead


class AuditLog:
    """Append-only audit log for many threads and processes.

    Args:
        path: The file, JSON lines; made when missing.
        key: The operator's secret, at least 16 bytes, or the path of a file that holds it.

    Raises:
        SettingsError: The key is missing or too short.

    Example:
        >>> import tempfile
        >>> log = AuditLog(tempfile.mkdtemp() + "/audit.jsonl", key=b"kept by the operator")
        >>> entry = log.append(who="ada", preset="p", model="m", query_id="q", prompt="Profit?",
        ...     passages=[("n1", "The profit was 7.")], answer="7 [1]", cost_usd=Decimal("0.001"))
        >>> (entry.number, log.verify().ok)
        (1, True)
    """

    def __init__(self, path: str | Path, *, key: bytes | str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._key = read_key(key)

    def __reduce__(self) -> NoReturn:
        raise MonitorError(
            f"The audit log '{self.path}' cannot be pickled: the operator's key would be written in clear. Open it in "
            "the process that writes it."
        )

    def append(
        self,
        *,
        who: str,
        preset: str,
        model: str,
        query_id: str,
        prompt: str,
        passages: Sequence[tuple[str, str]],
        answer: str,
        cost_usd: Decimal | None,
        status: str = "answered",
    ) -> AuditEntry:
        """Append an entry, durable on return.

        Args:
            who: User or service that asked.
            preset: Preset that answered.
            model: Model that answered.
            query_id: The query's id in the ledger.
            prompt: The question; only its keyed hash is kept.
            passages: Id and text of what the model or the reader was shown; only the SHA-256 of each text is kept.
            answer: The answer; only its keyed hash is kept.
            cost_usd: What the query cost, or None when that is not known.
            status: What became of the question; see `AuditEntry`.

        Raises:
            AuditError: The log cannot be written, or its last line is broken.
        """
        with self._alone() as descriptor:
            head = _last(descriptor, self.path)
            self._refuse_lost(head)
            entry = AuditEntry(
                who=who,
                preset=preset,
                model=model,
                query_id=query_id,
                prompt_hmac=self._keyed(prompt),
                passages=tuple((name, hashlib.sha256(_bytes(text)).hexdigest()) for name, text in passages),
                answer_hmac=self._keyed(answer),
                cost_usd="" if cost_usd is None else format(cost_usd, "f"),
                when=datetime.now(UTC).isoformat(timespec="microseconds"),
                number=head.number + 1,
                status=status,
            )
            body = _canonical(asdict(entry))
            line = {"entry": json.loads(body), "mac": _mac(self._key, head.mac, body)}
            write_all(descriptor, _as_line(line) + b"\n", durable=True)
            _record_head(self.path, AuditHead(number=entry.number, mac=str(line["mac"])))
        return entry

    def _refuse_lost(self, head: AuditHead) -> None:
        """Compare the log's end with the recorded head, so that nothing is chained to an emptied log."""
        recorded = _recorded_head(self.path)
        if recorded is not None and head.number < recorded.number:
            raise AuditError(
                f"Audit log '{self.path}' has {counted(head.number, 'entry')} and had {recorded.number}: the newest "
                "are missing. Restore it from a backup. To begin a new log, move it and "
                f"'{_head_file(self.path).name}' away."
            )

    def head(self) -> AuditHead:
        """Head of the chain, to be stored elsewhere.

        Raises:
            AuditError: The chain is broken.
        """
        report = self.verify()
        if not report.ok:
            raise AuditError(f"Audit log '{self.path}', line {report.first_bad}: {report.reason}.")
        return report.head

    def verify(self, head: AuditHead | None = None) -> AuditReport:
        """Check the whole chain, and that it still contains an exported head."""
        return verify(self.path, key=self._key, head=head)

    def _keyed(self, text: str) -> str:
        return hmac.digest(self._key, b"text\x00" + _bytes(text), hashlib.sha256).hex()

    @contextlib.contextmanager
    def _alone(self) -> Iterator[int]:
        """Open the log under its writer lock."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            lock = self.path.with_name(self.path.name + ".lock")
            with locked(lock, exclusive=True, timeout_s=30) as taken:
                if not taken:
                    raise AuditError(
                        f"Audit log '{self.path}' was locked for 30 s. Look for a process that hangs."
                    )
                descriptor = os.open(self.path, os.O_CREAT | os.O_RDWR | os.O_APPEND | BINARY, 0o600)
                try:
                    yield descriptor
                finally:
                    os.close(descriptor)
        except OSError as error:
            raise AuditError(
                f"Audit log '{self.path}' cannot be written: {error}. The query must not go unlogged: "
                f"{'free space on its disk' if is_full(error) else 'make the folder writable'}."
            ) from error


def read_key(key: bytes | str | os.PathLike[str]) -> bytes:
    """Give the key itself, or read it from a file.

    Raises:
        SettingsError: It cannot be read or has fewer than 16 bytes.
    """
    if not isinstance(key, bytes):
        file = Path(key)
        try:
            key = file.read_bytes().strip()
        except OSError as error:
            raise SettingsError(
                f"Audit key file '{file}' cannot be read: {error}. Expected a file of yours."
            ) from error
    if len(key) < _SHORTEST_KEY:
        raise SettingsError(
            f"The audit key has {counted(len(key), 'byte')}. Expected at least {_SHORTEST_KEY}: openssl rand -hex 32."
        )
    return key


def no_log(path: str | Path) -> AuditError:
    """The error of a log that is not there.

    Example:
        >>> str(no_log("audit.jsonl")).split(". ")[0]
        "There is no audit log 'audit.jsonl'"
    """
    return AuditError(
        f"There is no audit log '{path}'. It begins with the first question to a preset with monitoring = 'audit', "
        "as financial-documents has; name its --storage."
    )


def verify(
    path: str | Path, *, key: bytes | str | os.PathLike[str], head: AuditHead | None = None
) -> AuditReport:
    """Check an audit log; what `llama-presets audit verify` runs.

    Args:
        path: The log.
        key: The operator's key or its file.
        head: An exported head; the log must contain it, so that removing the newest entries shows. Without it, the
            head that `append` has recorded beside the log is taken, where there is one.

    Returns:
        The report; faults are in it, not raised.

    Raises:
        SettingsError: The key cannot be read.
        AuditError: The log cannot be read.
    """
    secret = read_key(key)
    recorded = _recorded_head(Path(path))  # before the log, which may grow meanwhile
    try:
        lines = Path(path).read_bytes().split(b"\n")
    except FileNotFoundError as error:
        raise no_log(path) from error
    except OSError as error:
        raise AuditError(f"Audit log '{path}' cannot be read: {error}.") from error
    torn = lines.pop() != b""
    mac, macs = _GENESIS, [_GENESIS]
    for number, line in enumerate(lines, start=1):
        reason, mac = _check_line(line, number, mac, secret)
        if reason:
            return _bad(macs, number, reason)
        macs.append(mac)
    if torn:
        return _bad(macs, len(macs), "the last line is not complete")
    for known, name in ((head, "exported"), (recorded, "recorded")):
        if known is not None and (reason := _contradiction(macs, known, name)):
            return _bad(macs, min(known.number, len(macs)), reason)
    return AuditReport(ok=True, entries=len(lines), first_bad=None, reason="", head=_head(macs))


def _contradiction(macs: list[str], head: AuditHead, name: str) -> str:
    """What is wrong when a chain does not contain a head; empty when it does."""
    if head.number >= len(macs):
        return f"entries up to the {name} head are missing"
    same = hmac.compare_digest(macs[head.number].encode(), head.mac.encode())
    return "" if same else f"the {name} head is another chain's"


def _head_file(log: Path) -> Path:
    return log.with_name(log.name + ".head")


def _record_head(log: Path, head: AuditHead) -> None:
    """Keep the end of the chain beside the log; an older one, where the disk is full, is on the chain as well."""
    file = _head_file(log)
    draft = file.with_name(file.name + ".draft")
    with contextlib.suppress(OSError):
        private_file(draft)
        head.save(draft)
        draft.replace(file)


def _recorded_head(log: Path) -> AuditHead | None:
    """The head beside a log; None where it is missing, or cut by a crash of the machine."""
    try:
        return AuditHead.load(_head_file(log))
    except AuditError:
        return None


def _check_line(line: bytes, number: int, before: str, secret: bytes) -> tuple[str, str]:
    try:
        content = json.loads(line)
        entry, mac = content["entry"], str(content["mac"])
        number_in_entry = entry["number"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return "the line is no entry", before
    if _as_line(content) != line:
        # A repeated key, say: one reader takes its first value, another its last.
        return "the line is not written as the log writes entries: it was edited", before
    expected = _mac(secret, before, _canonical(entry))
    if set(content) != {"entry", "mac"} or not hmac.compare_digest(mac, expected):
        return (
            "the entry does not follow from the one before it: it was edited, moved, or one was removed",
            before,
        )
    if number_in_entry != number:
        return f"the entry says it is number {number_in_entry}", before
    return "", mac


def _bad(macs: list[str], line: int, reason: str) -> AuditReport:
    return AuditReport(ok=False, entries=len(macs) - 1, first_bad=line, reason=reason, head=_head(macs))


def _head(macs: list[str]) -> AuditHead:
    return AuditHead(number=len(macs) - 1, mac=macs[-1])


def _last(descriptor: int, path: Path) -> AuditHead:
    """Read the end of the chain from the last line alone."""
    size = os.fstat(descriptor).st_size
    if not size:
        return AuditHead(number=0, mac=_GENESIS)
    window, tail = 4096, b""
    while tail.count(b"\n") < 2 and len(tail) < size:
        window = min(window * 4, size)
        tail = os.pread(descriptor, window, size - window)
    try:
        line = tail.removesuffix(b"\n").rpartition(b"\n")[2]
        content = json.loads(line)
        if not tail.endswith(b"\n") or _as_line(content) != line:
            raise ValueError("its last line is not complete, or was edited")
        return AuditHead(number=int(content["entry"]["number"]), mac=str(content["mac"]))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise AuditError(
            f"Audit log '{path}' cannot be continued: {error!r}. Run verify, keep the file, and start a new log."
        ) from error


def _mac(key: bytes, before: str, body: str) -> str:
    return hmac.digest(key, b"entry\x00" + before.encode() + b"\x00" + body.encode(), hashlib.sha256).hex()


def _canonical(entry: Any) -> str:
    return json.dumps(entry, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def _as_line(content: Any) -> bytes:
    """Canonical line of an entry, without its end."""
    return json.dumps(content, sort_keys=True).encode()


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


# -- key ------------------------------------------------------------------------------------------------------


AUDIT_KEY: Final = "LLAMA_PRESETS_AUDIT_KEY"
"""Environment variable that holds the key, or the path of its file."""


def audit_key_file() -> Path:
    """Default file of the key, in the user's configuration folder."""
    return configuration_file("audit.key")


def audit_key(*, make: bool) -> bytes:
    """Find the operator's key.

    ``$LLAMA_PRESETS_AUDIT_KEY`` goes first: the path of a file, where it starts with ``/``, ``~`` or ``.`` or where
    such a file exists, else the key itself. Without it the key is in `audit_key_file`, readable by its owner alone.

    Args:
        make: Whether to make that file, with a random key of 32 bytes in hex, where there is none.

    Raises:
        SettingsError: There is no key and none may be made, or it cannot be read, or has fewer than 16 bytes.
    """
    named = os.environ.get(AUDIT_KEY, "")
    if named:
        # `Path.is_file` raises, with the key in its message, where a key is longer than the name of a file can be.
        is_path = named.startswith(("/", "~", ".")) or os.path.isfile(named)  # noqa: PTH113
        return read_key(Path(named).expanduser() if is_path else named.encode())
    file = audit_key_file()
    if make and not file.exists():
        _make(file)
    if not file.exists():
        raise SettingsError(
            f"The operator's key is missing: there is no '{file}'. Set {AUDIT_KEY} to the key or its file, or give "
            "--key FILE."
        )
    return read_key(file)


def _make(file: Path) -> None:
    """Create a key file atomically, for its owner alone; of two processes that create one, the first wins."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        create_file(file, secrets.token_hex(32).encode() + b"\n")
    except OSError as error:
        raise SettingsError(
            f"The audit key '{file}' cannot be made ({error.strerror}). Set {AUDIT_KEY} to a key of yours, or to its "
            "file: openssl rand -hex 32."
        ) from error
