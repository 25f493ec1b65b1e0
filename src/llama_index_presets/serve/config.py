"""Configuration of a server: engines by name, limits and access, from one TOML file or from the command line.

[serve]
host = "127.0.0.1"
port = 8000
keys = "keys.json"

[serve.limits]
answer_s = 60

[engines.hr]
preset = "knowledge-base"
storage = "./hr"
offline = true
llm = "ollama/llama3.2"
settings = { top_k = 8 }
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Final

from llama_index_presets._addresses import is_loopback
from llama_index_presets._options import nearest
from llama_index_presets.errors import SettingsError
from llama_index_presets.files.toml_files import read_settings_toml
from llama_index_presets.presets.index.address import is_url
from llama_index_presets.presets.matrix import preset as find_preset
from llama_index_presets.presets.project.file import beside, is_project, read_project
from llama_index_presets.presets.project.settings_sources import with_paths_beside
from llama_index_presets.serve.callers.key_file import parse_budget
from llama_index_presets.serve.callers.limits import Limits

__all__ = ["EngineConfig", "ServeConfig", "read_config"]

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HOST: Final = re.compile(r"[\w.-]+|\[?[0-9A-Fa-f:.]+\]?")
_HEADER: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """One engine to serve.

    Attributes:
        preset: Row of the matrix.
        storage: Folder or URL of the index.
        offline: As for `build`.
        llm: Name of the language model, or None for the preset's.
        settings: Values, or the path of a TOML file; None for the defaults.
        budget: Limit of the whole engine as ``"20/day"``, or empty.
    """

    preset: str
    storage: str
    offline: bool = False
    llm: str | None = None
    settings: Mapping[str, Any] | str | None = None
    budget: str = ""

    def __post_init__(self) -> None:
        find_preset(self.preset)
        if self.budget:
            parse_budget(self.budget)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeConfig:
    """What is served, where and for whom.

    Attributes:
        engines: Engines by name; the first is the default. Empty where an application brings its own.
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.
        keys: File of API keys; None takes the default file where it exists.
        limits: Sizes, times and counts.
        hosts: Names that a request may give as its host; of a server on loopback, beside those of loopback.
        certificate: PEM file of the certificate chain, for TLS.
        private_key: PEM file of its key; None where the chain holds it.
        identity_header: Header in which a reverse proxy names the caller, or empty. Believed only of `proxies`.
        proxies: Addresses of such proxies.
        workers: Processes that serve the socket together.
    """

    engines: Mapping[str, EngineConfig] = field(default_factory=dict)
    host: str = "127.0.0.1"
    port: int = 8000
    keys: str | None = None
    limits: Limits = field(default_factory=Limits)
    hosts: tuple[str, ...] = ()
    certificate: str | None = None
    private_key: str | None = None
    identity_header: str = ""
    proxies: tuple[str, ...] = ()
    workers: int = 1

    def __post_init__(self) -> None:
        for name in self.engines:
            if not _NAME.fullmatch(name):
                raise SettingsError(f"The engine name {name!r} is not usable. Take letters, digits and . _ -")
        if not 0 <= self.port <= 65_535:
            raise SettingsError(f"The port is {self.port}, expected 0 to 65535.")
        if not 1 <= self.workers <= 256:
            raise SettingsError(f"workers is {self.workers}, expected 1 to 256.")
        if self.private_key and not self.certificate:
            raise SettingsError(
                "A private key is given without its certificate. Give --certificate FILE, too."
            )
        if not self.host.strip():
            raise SettingsError(
                "The host is empty, which would be every address. Give one, such as 127.0.0.1."
            )
        for name in self.hosts:
            if not isinstance(name, str) or not _HOST.fullmatch(name):
                raise SettingsError(
                    f"{name!r} in hosts is no name of a host. Write it without scheme, port and stars: kb.example.com."
                )
        for address in self.proxies:
            if not _is_address(address):
                raise SettingsError(
                    f"{address!r} in proxies is no IP address, so no proxy would be believed. Write each proxy's own: "
                    "10.0.0.7."
                )
        if self.identity_header and not _HEADER.fullmatch(self.identity_header):
            raise SettingsError(f"identity_header is {self.identity_header!r}, which is no name of a header.")
        if bool(self.identity_header) != bool(self.proxies):
            raise SettingsError(
                "identity_header and proxies belong together: anybody can send a header, so only the proxies named are "
                "believed. Give both, or neither."
            )

    @property
    def public(self) -> bool:
        """Whether other machines can reach the server."""
        return not is_loopback(f"[{self.host}]" if ":" in self.host else self.host)

    def with_changes(self, **changes: Any) -> ServeConfig:
        """The same with some values replaced; None leaves one as it is."""
        return replace(self, **{name: value for name, value in changes.items() if value is not None})


def read_config(path: Path, first: Mapping[str, EngineConfig] | None = None) -> ServeConfig:
    """Read a TOML file.

    Args:
        path: The file.
        first: Engines that go before its own, such as that of a project file.

    Paths in it are relative to its folder. A project file may have its own names beside ``serve`` and ``engines``; any
    other name is refused, since one that were passed over, such as ``keys`` at the top, would open the server.

    Raises:
        SettingsError: It cannot be read, or a name or value in it is wrong; all unknown names of a table at once.
    """
    content = read_settings_toml(path, "configuration")
    _refuse_strangers(content, path)
    serve = _table(content, "serve", path)
    limits = Limits(**_known(Limits, _table(serve, "limits", path), f"{path} [serve.limits]"))
    values = {name: value for name, value in serve.items() if name != "limits"}
    values = _known(ServeConfig, values, f"{path} [serve]", without=("engines", "limits"))
    for name in ("keys", "certificate", "private_key"):
        if name in values:
            values[name] = beside(path.parent, values[name])
    for name in ("hosts", "proxies"):
        if name in values:
            values[name] = tuple(values[name])
    engines = {
        **(first or {}),
        **{name: _engine(table, path, name) for name, table in _table(content, "engines", path).items()},
    }
    if not engines:
        raise SettingsError(f"There is no engine to serve in '{path}'. Write a table: [engines.NAME].")
    return ServeConfig(engines=engines, limits=limits, **values)


def _refuse_strangers(content: Mapping[str, Any], path: Path) -> None:
    """Refuse names at the top of a file that belong nowhere, and say where they belong."""
    if is_project(content):
        read_project(path)  # checks them
        return
    strangers = [name for name in content if name not in ("serve", "engines")]
    own = {one.name for one in fields(ServeConfig)}
    if strangers:
        said = [
            f"'{name}' belongs below [serve]" if name in own else f"'{name}' is unknown" for name in strangers
        ]
        raise SettingsError(f"{path}: {'; '.join(said)}. It takes the tables [serve] and [engines.NAME].")


def _engine(table: Any, path: Path, name: str) -> EngineConfig:
    place = f"{path} [engines.{name}]"
    if not isinstance(table, dict):
        raise SettingsError(f"{place} is no table.")
    values = _known(EngineConfig, table, place)
    missing = [wanted for wanted in ("preset", "storage") if wanted not in values]
    if missing:
        raise SettingsError(f"{place} lacks {' and '.join(missing)}.")
    values["storage"] = (
        values["storage"] if is_url(values["storage"]) else beside(path.parent, values["storage"])
    )
    if isinstance(values.get("settings"), str):
        values["settings"] = beside(path.parent, values["settings"])
    elif "settings" in values:
        values["settings"] = with_paths_beside(path.parent, values["settings"])
    return EngineConfig(**values)


def _table(content: Mapping[str, Any], name: str, path: Path) -> dict[str, Any]:
    table = content.get(name, {})
    if not isinstance(table, dict):
        raise SettingsError(f"[{name}] of '{path}' is no table.")
    return table


_KINDS: Final[dict[str, tuple[type, ...]]] = {
    "port": (int,),
    "workers": (int,),
    "offline": (bool,),
    "settings": (dict, str),
    "hosts": (list,),
    "proxies": (list,),
}


def _known(kind: type, table: Mapping[str, Any], place: str, without: tuple[str, ...] = ()) -> dict[str, Any]:
    """Values of a table, when every name is a field of `kind` and every value of its type."""
    names = [one.name for one in fields(kind) if one.name not in without]
    faults = []
    for name, value in table.items():
        if name not in names:
            near = nearest(name, names)
            faults.append(f"'{name}' is unknown" + (f", did you mean '{near}'?" if near else ""))
        elif value == "":
            faults.append(f"{name} is empty: leave the line out for the default")
        elif kind is not Limits and (
            not isinstance(value, kinds := _KINDS.get(name, (str,)))
            or (isinstance(value, bool) and bool not in kinds)
        ):
            faults.append(f"{name} is {value!r}")
    if faults:
        raise SettingsError(f"{place}: {'; '.join(faults)}. It takes: {', '.join(names)}.")
    return dict(table)


def _is_address(value: Any) -> bool:
    try:
        return isinstance(value, str) and bool(ipaddress.ip_address(value))
    except ValueError:
        return False
