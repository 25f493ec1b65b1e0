"""Callers: API keys, kept as hashes in one file, and what each key's caller may do.

Tenant, groups, budget, rate and the name in the audit log belong to the key; a request cannot name them. The file is
read again when it changes, so that a key is added or revoked while the server runs.
"""

from __future__ import annotations

import hmac
import json
import os
import re
import secrets
import stat
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, cast

from llama_index_presets.errors import SettingsError
from llama_index_presets.files.locks import FileLock
from llama_index_presets.files.private_files import configuration_file, private_folder
from llama_index_presets.files.whole_files import replace_file
from llama_index_presets.monitor.budgets import Budget
from llama_index_presets.serve.protocols.problems import Problem
from llama_index_presets.text.digests import text_digest

if TYPE_CHECKING:
    from llama_index_presets.presets.engine import PresetEngine

__all__ = [
    "ANYBODY",
    "Caller",
    "KeyFile",
    "default_key_file",
    "engine_of",
    "parse_budget",
    "parse_expiry",
    "parse_rate",
]

_PERIODS: Final = {"second": 1.0, "minute": 60.0, "hour": 3_600.0, "day": 86_400.0}
_NAME: Final = re.compile(r"[\w.@+-]{1,100}")
_PREFIX: Final = "lp"


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who sends a request, and what they may do.

    Attributes:
        name: Name for the audit log, the ledger (tag ``key:NAME``) and the budget.
        tenant: Tenant whose documents they see, or empty.
        groups: Groups whose documents they see; empty where permissions play no part.
        budget: Limit as ``"5/day"``, or empty.
        rate: Requests as ``"60/minute"``, or empty for the server's default.
        read_only: Whether they may only ask, not ingest or delete.
        expires: Day after which the key is refused, ISO 8601 in UTC, or empty.
        created: When the key was made, likewise.
        id: Public part of the key; empty where there is none.
        sha256: Hash of the key, in hex; empty where there is none.
    """

    name: str
    tenant: str = ""
    groups: tuple[str, ...] = ()
    budget: str = ""
    rate: str = ""
    read_only: bool = False
    expires: str = ""
    created: str = ""
    id: str = ""
    sha256: str = ""

    @property
    def tags(self) -> tuple[str, ...]:
        """Tags of the caller's model calls in the ledger."""
        return (f"key:{self.name}",) if self.id else ()

    def limit(self) -> Budget | None:
        """Budget of the caller's calls."""
        if not self.budget:
            return None
        amount, period = parse_budget(self.budget)
        return Budget(limit_usd=amount, per=period, by="tag", only=f"key:{self.name}")

    def to_dict(self) -> dict[str, Any]:
        """As JSON values, without the hash."""
        return {name: value for name, value in asdict(self).items() if name != "sha256"}


ANYBODY: Final = Caller(name="local")
"""Caller of a server without keys, which listens on this machine alone."""


def engine_of(engine: PresetEngine, caller: Caller) -> PresetEngine:
    """An engine as a caller sees it: the one place where a caller becomes filters.

    Raises:
        Problem: 403, the caller has groups and the storage no permissions, or the other way round.
    """
    view = engine.for_user(caller.name) if caller.id else engine
    if caller.tenant:
        view = view.for_tenant(caller.tenant)
    if caller.groups and not engine.has_permissions:
        raise Problem(
            403,
            "This key has groups, and this engine has no permissions. Its operator sets permissions = 'on'.",
            code="permissions_off",
        )
    if engine.has_permissions:
        if not caller.groups:
            raise Problem(
                403,
                "This engine shows documents to groups, and the caller has none. Ask for a key with --groups.",
                code="groups_needed",
            )
        view = view.as_user(user=caller.name, groups=caller.groups)
    return view


# -- the file of hashes -----------------------------------------------------------------------------------------------


def default_key_file() -> Path:
    """File of the keys where none is named: in the user's configuration folder."""
    return configuration_file("keys.json")


class KeyFile:
    """File of key hashes, readable by its owner alone; safe for several processes.

    Args:
        path: The file.
        named: Whether the operator named it, so that callers need a key though it is missing.

    Example:
        >>> import tempfile
        >>> keys = KeyFile(Path(tempfile.mkdtemp()) / "keys.json")
        >>> key = keys.add(Caller(name="ada", tenant="acme"))
        >>> keys.caller(key).tenant
        'acme'
    """

    def __init__(self, path: Path, *, named: bool = False) -> None:
        self.path = path
        self._asked = named
        # One value: a thread that read the file before a change must not leave its callers under the new stamp.
        self._known: tuple[tuple[int, ...], Mapping[str, Caller]] = ((), {})

    @property
    def asked(self) -> bool:
        """Whether callers need a key: where the file was named, and from the moment on at which it is there.

        Then no request is answered without one, even if the file holds none, or is gone again.

        Raises:
            SettingsError: Its folder cannot be looked into.
        """
        if not self._asked:
            self._asked = self.exists()
        return self._asked

    def exists(self) -> bool:
        """Whether there is a file, or a link that leads nowhere yet.

        Raises:
            SettingsError: Its folder cannot be looked into.
        """
        try:
            self.path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise SettingsError(
                f"Whether there are keys in '{self.path}' cannot be seen ({error.strerror}). Fix the rights of its "
                "folder, or name another file with --keys."
            ) from error
        return True

    def callers(self) -> Mapping[str, Caller]:
        """Callers by the public part of their key; read again when the file has changed.

        Raises:
            SettingsError: The file cannot be read.
        """
        try:
            status = self.path.stat()
        except FileNotFoundError:
            if any(self._known):
                self._known = ((), {})
            return self._known[1]
        stamp = (status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino, status.st_mode)
        known = self._known
        if stamp != known[0]:
            known = self._known = (stamp, {caller.id: caller for caller in self._read()})
        return known[1]

    def caller(self, key: str) -> Caller:
        """Caller of a key; compared in constant time.

        Raises:
            Problem: 401, the key is unknown, revoked or expired.
        """
        parts = key.split("-", 2)
        found = self.callers().get(parts[1]) if len(parts) == 3 and parts[0] == _PREFIX else None
        expected = found.sha256 if found is not None else "0" * 64
        if not hmac.compare_digest(text_digest(key), expected) or found is None:
            raise Problem(
                401, "The API key is not known. Check it, or ask for a new one.", code="invalid_api_key"
            )
        if _is_over(found):
            raise Problem(
                401, f"The API key expired on {found.expires}. Ask for a new one.", code="expired_api_key"
            )
        return found

    def knows(self, caller: Caller) -> bool:
        """Whether the key of a caller, who was let in before, still counts.

        Raises:
            SettingsError: The file cannot be read.
        """
        found = self.callers().get(caller.id)
        return found is not None and not _is_over(found)

    def named(self, name: str) -> Caller | None:
        """Caller by name, for an identity that a trusted proxy has checked; None for an unknown or expired one."""
        found = next((caller for caller in self.callers().values() if caller.name == name), None)
        return None if found is None or _is_over(found) else found

    def add(self, caller: Caller) -> str:
        """Make a key; it is returned here and can never be shown again.

        Raises:
            SettingsError: The name is taken or not usable, or a value is wrong.
        """
        _check(caller)
        key_id = secrets.token_hex(6)
        key = f"{_PREFIX}-{key_id}-{secrets.token_urlsafe(32)}"
        made = replace(
            caller,
            id=key_id,
            sha256=text_digest(key),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        with self._changing() as callers:
            if any(known.name == caller.name for known in callers):
                raise SettingsError(
                    f"There is a key of the name '{caller.name}'. Revoke it first, or choose another name."
                )
            callers.append(made)
        return key

    def revoke(self, name: str) -> None:
        """Remove a key; the next request with it is refused.

        Raises:
            SettingsError: There is none of this name.
        """
        with self._changing() as callers:
            kept = [caller for caller in callers if caller.name != name]
            if len(kept) == len(callers):
                known = ", ".join(caller.name for caller in callers) or "none"
                raise SettingsError(f"There is no key '{name}' in '{self.path}'. There are: {known}.")
            callers[:] = kept

    def _changing(self) -> _Changing:
        return _Changing(self)

    def _read(self) -> list[Caller]:
        try:
            with self.path.open("rb") as file:
                _refuse_open_to_all(os.fstat(file.fileno()).st_mode)
                content = json.loads(file.read().decode("utf-8-sig"), object_pairs_hook=_without_twins)
            return _callers(content)
        except FileNotFoundError:
            return []
        except (OSError, ValueError, RecursionError) as error:
            reason = str(error) if isinstance(error, SettingsError) else type(error).__name__
            raise SettingsError(
                f"The keys in '{self.path}' cannot be read ({reason}). Correct or restore the file, or delete it "
                "and make the keys again; until then no key is accepted."
            ) from error


class _Changing:
    """Read, change and replace a key file, alone among processes."""

    def __init__(self, file: KeyFile) -> None:
        self._file = file
        private_folder(file.path.parent)
        self._lock = FileLock(file.path.with_suffix(".lock"))

    def __enter__(self) -> list[Caller]:
        self._lock.acquire()
        try:
            self._callers = self._file._read()
        except BaseException:
            self._lock.close()
            raise
        return self._callers

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._write()
        finally:
            self._lock.close()

    def _write(self) -> None:
        path = self._file.path
        keys = json.dumps({"version": 1, "keys": [asdict(caller) for caller in self._callers]}, indent=1)
        replace_file(path, keys, draft=path.with_suffix(".draft"), private=True, durable=True)


# -- content of the file: what is written by hand is checked as what 'key add' makes ---------------------------------


_HEX: Final = re.compile(r"[0-9a-f]{64}")
_ID: Final = re.compile(r"[0-9A-Za-z]{1,64}")
_SHAPES: Final[dict[str, tuple[type, str]]] = {
    **{one.name: (str, "a text") for one in fields(Caller)},
    "groups": (list, "a list of texts"),
    "read_only": (bool, "true or false"),
}


def _refuse_open_to_all(mode: int) -> None:
    if os.name == "posix" and mode & stat.S_IWOTH:
        raise SettingsError("every user of this machine can write it and so let themselves in: chmod o-w")


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; a name given twice, of which JSON readers take the last, is refused."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise SettingsError(
            f"{next(name for name in names if names.count(name) > 1)!r} is given twice in one entry"
        )
    return found


def _callers(content: Any) -> list[Caller]:
    entries = content.get("keys") if isinstance(content, dict) else None
    if not isinstance(entries, list) or content.get("version", 1) != 1:
        raise SettingsError('expected {"version": 1, "keys": [...]}')
    callers = [_caller(entry, place) for place, entry in enumerate(entries, start=1)]
    for what in ("name", "id"):
        values = [getattr(caller, what) for caller in callers]
        twice = sorted({value for value in values if values.count(value) > 1})
        if twice:
            raise SettingsError(f"two keys have the {what} {twice[0]!r}")
    return callers


def _caller(entry: Any, place: int) -> Caller:
    """Caller of an entry. Nothing of it is passed over: a tenant that is null would open the documents of all."""
    if not isinstance(entry, dict):
        raise SettingsError(f"key {place} is no object")
    called = f"key {place}, {entry.get('name')!r}"
    faults = [f"'{name}' is unknown" for name in entry if name not in _SHAPES]
    faults += [f"'{name}' is missing" for name in ("name", "id", "sha256") if name not in entry]
    for name, value in entry.items():
        kind, expected = _SHAPES.get(name, (object, ""))
        fits = isinstance(value, kind)
        if isinstance(value, list):
            fits = fits and all(isinstance(one, str) for one in value)
        if not fits and name != "sha256":
            faults.append(f"{name} is {value!r}, expected {expected}")
    if faults:
        raise SettingsError(f"{called}: {'; '.join(faults)}")
    if not _HEX.fullmatch(str(entry["sha256"])) or not _ID.fullmatch(entry["id"]):
        raise SettingsError(f"{called}: id and sha256 are not those of a key")
    caller = Caller(**{**entry, "groups": tuple(entry.get("groups", ()))})
    try:
        _check(caller)
    except SettingsError as error:
        raise SettingsError(f"{called}: {error}") from error
    return caller


# -- values of a key --------------------------------------------------------------------------------------------------


def _check(caller: Caller) -> None:
    if not _NAME.fullmatch(caller.name):
        raise SettingsError(
            f"The name {caller.name!r} is not usable. Take letters, digits and . _ - + @, 100 at most."
        )
    if caller.tenant != caller.tenant.strip() or not caller.tenant.isprintable():
        raise SettingsError(
            f"The tenant {caller.tenant!r} has outer spaces or control characters. Leave them out."
        )
    if caller.groups:
        from llama_index_presets.ingest.metadata.permissions import principals

        principals(caller.name, caller.groups)
    if caller.budget:
        parse_budget(caller.budget)
    if caller.rate:
        parse_rate(caller.rate)
    if caller.expires:
        _moment(caller.expires)


def parse_budget(text: str) -> tuple[Decimal, Literal["day", "month", "query", "ever"]]:
    """Amount in USD and period of a budget.

    Example:
        >>> parse_budget("5/day"), parse_budget("20")
        ((Decimal('5'), 'day'), (Decimal('20'), 'ever'))
    """
    amount, _, period = text.partition("/")
    try:
        limit = Decimal(amount.strip().removeprefix("$"))
    except InvalidOperation:
        limit = Decimal(0)
    period = period.strip() or "ever"
    if not limit.is_finite() or limit <= 0 or period not in ("day", "month", "query", "ever"):
        raise SettingsError(
            f"'{text}' is no budget. Write US dollars and a period: 5/day, 100/month, 0.05/query or 20/ever."
        )
    return limit, cast(Literal["day", "month", "query", "ever"], period)


def parse_rate(text: str) -> tuple[float, float]:
    """Requests and period in seconds of a rate.

    Example:
        >>> parse_rate("60/minute")
        (60.0, 60.0)
    """
    count, _, period = text.partition("/")
    if not count.strip().isdecimal() or int(count) < 1 or period.strip() not in _PERIODS:
        raise SettingsError(
            f"'{text}' is no rate. Write requests and a period: 60/minute, 5/second, 1000/hour."
        )
    return float(count), _PERIODS[period.strip()]


def parse_expiry(text: str, *, now: datetime | None = None) -> str:
    """Moment at which a key expires, ISO 8601 in UTC, of a date (``2027-01-31``) or a time from now (``90d``, ``12h``).

    Raises:
        SettingsError: It is neither, or is over already.

    Example:
        >>> parse_expiry("90d", now=datetime(2026, 1, 1, tzinfo=UTC))
        '2026-04-01T00:00:00+00:00'
    """
    from datetime import timedelta

    if matched := re.fullmatch(r"(\d{1,5})([dh])", text.strip()):
        count = int(matched[1])
        span = timedelta(days=count) if matched[2] == "d" else timedelta(hours=count)
        return ((now or datetime.now(UTC)) + span).isoformat(timespec="seconds")
    moment = _moment(text)
    if moment <= (now or datetime.now(UTC)):
        raise SettingsError(
            f"'{text}' is over already: the key would be refused from the start. Give a later date."
        )
    return moment.isoformat(timespec="seconds")


def _is_over(caller: Caller) -> bool:
    return bool(caller.expires) and datetime.now(UTC) >= _moment(caller.expires)


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise SettingsError(
            f"'{text}' is no date. Write 2027-01-31, or a time from now: 90d, 12h."
        ) from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
