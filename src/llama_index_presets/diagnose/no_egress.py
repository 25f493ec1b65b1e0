"""Egress check: a preset run in a network namespace, with every address that it tried to reach.

Run as a program, this module is the child process that does the work inside the namespace.
"""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import ipaddress
import json
import os
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from dataclasses import asdict, dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, Final

from llama_index_presets.counting import counted
from llama_index_presets.diagnose.samples import SAMPLE_QUESTION, write_samples
from llama_index_presets.errors import PresetsError, SettingsError
from llama_index_presets.packages.extras import installed
from llama_index_presets.presets.matrix import preset as find_preset
from llama_index_presets.providers.language_providers import PROVIDERS
from llama_index_presets.providers.names import SERVER

__all__ = [
    "Attempt",
    "EgressReport",
    "Watch",
    "enter_network_namespace",
    "parse_packet",
    "run_without_network",
]


_ANSWER: Final = {
    "id": "stand-in",
    "object": "chat.completion",
    "created": 0,
    "model": "stand-in",
    "choices": [
        {
            "index": 0,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": "It is served here. [1]"},
        }
    ],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
}


class _LoopbackModel:
    """Server on loopback, for the time of a ``with`` block.

    Attributes:
        requests: How many requests it has answered.
    """

    def __init__(self) -> None:
        self.requests = 0
        owner = self

        class Handler(BaseHTTPRequestHandler):
            """Answers every request alike."""

            def do_POST(self) -> None:
                """Answer."""
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                owner.requests += 1
                data = json.dumps(_ANSWER).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: object) -> None:
                """Stay silent."""

        self._server = HTTPServer(("127.0.0.1", 0), Handler)

    @property
    def name(self) -> str:
        """Its name, as a setting `llm` spells it."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1#stand-in"

    def __enter__(self) -> _LoopbackModel:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


# A network that leads nowhere and is watched: a Linux network namespace in which every address is this machine.
#
# In it, packets to any address are delivered to the loopback interface, where no program listens, and a packet
# socket sees
# them all: also those of libraries in C and Rust, which no hook in Python can see, and the names that were
# asked of any
# name server. Not seen are sockets in the file system (a local daemon could pass a message on).


_NEW_USER, _NEW_NET = 0x10000000, 0x40000000
_SET_FLAGS, _UP = 0x8914, 0x1
_ALL_PROTOCOLS, _OUTGOING, _IPV6 = 0x0003, 4, 0x86DD
_TCP, _UDP, _ICMP, _ICMP6 = 6, 17, 1, 58
_SYN_ACK, _SYN = 0x12, 0x02
_DNS = 53


@dataclass(frozen=True, slots=True, order=True)
class Attempt:
    """Attempted connection beyond the machine, or a name lookup.

    Attributes:
        protocol: ``tcp``, ``udp``, ``icmp`` or ``dns``.
        address: Where to.
        port: Which port there; 0 for protocols without ports.
        name: The name that was asked for, of ``dns``.
    """

    protocol: str
    address: str
    port: int
    name: str = ""

    def __str__(self) -> str:
        """One line for a person."""
        return (
            f"dns query for '{self.name}'" if self.name else f"{self.protocol} to {self.address}:{self.port}"
        )


def enter_network_namespace() -> None:
    """Move this process into a network namespace of its own, shared with its children only.

    Must be called before any thread is started. There is no way back.

    Raises:
        PresetsError: The system does not have or does not permit it.
    """
    user, group = os.getuid(), os.getgid()
    flags = _NEW_NET if user == 0 else _NEW_NET | _NEW_USER
    try:
        library = ctypes.CDLL(None, use_errno=True)
        if library.unshare(flags) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        if user != 0:  # the same user inside, with rights over this namespace alone
            Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
            Path("/proc/self/uid_map").write_text(f"{user} {user} 1", encoding="ascii")
            Path("/proc/self/gid_map").write_text(f"{group} {group} 1", encoding="ascii")
        _loopback_up()
        for family in (socket.AF_INET, socket.AF_INET6):
            _deliver_everything_here(family)
    except (OSError, AttributeError) as error:
        raise PresetsError(
            f"No network namespace can be made here ({getattr(error, 'strerror', None) or error}). It needs Linux, and "
            "either root or unprivileged user namespaces: in a container, run it with --cap-add SYS_ADMIN, or use the "
            "host; on Ubuntu 24.04, see kernel.apparmor_restrict_unprivileged_userns."
        ) from error


class Watch:
    """Packet capture on the loopback interface of this namespace, until the end of a ``with`` block."""

    def __init__(self) -> None:
        self._seen: Counter[Attempt] = Counter()
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ALL_PROTOCOLS))
        self._socket.bind(("lo", _ALL_PROTOCOLS))
        self._socket.settimeout(0.2)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._socket.close()

    def seen(self) -> dict[Attempt, int]:
        """Attempts and their packet counts; complete after the block."""
        return dict(self._seen)

    def _read(self) -> None:
        while True:
            try:
                packet, sender = self._socket.recvfrom(65_535)
            except TimeoutError:
                if self._ended.is_set():
                    return
                continue
            attempt = None if sender[2] == _OUTGOING else parse_packet(packet)
            if attempt is not None:
                self._seen[attempt] += 1


def parse_packet(packet: bytes) -> Attempt | None:
    """Attempt behind an IP packet; None for answers and for packets that stay on loopback.

    A query for a name counts wherever it goes: a name server on loopback passes it on.

    Example:
        >>> header = bytes.fromhex("45000028 00000000 40060000 7f000001 c0000201")  # TCP, to 192.0.2.1
        >>> str(parse_packet(header + bytes.fromhex("040001bb 00000000 00000000 5002")))
        'tcp to 192.0.2.1:443'
    """
    try:
        if packet[0] >> 4 == 4:
            length, protocol, target = (packet[0] & 15) * 4, packet[9], ipaddress.ip_address(packet[16:20])
            return _parse_payload(protocol, target, packet[length:])
        return _parse_payload(packet[6], ipaddress.ip_address(packet[24:40]), packet[40:])
    except (IndexError, ValueError, struct.error):
        return None


def _parse_payload(
    protocol: int, target: ipaddress.IPv4Address | ipaddress.IPv6Address, payload: bytes
) -> Attempt | None:
    address, outside = str(target), not target.is_loopback
    if protocol in (_ICMP, _ICMP6):
        return Attempt("icmp", address, 0) if outside and payload[0] in (8, 128) else None
    if protocol == _TCP:
        (port,) = struct.unpack("!H", payload[2:4])
        begins = payload[13] & _SYN_ACK == _SYN
        return Attempt("tcp", address, port) if begins and (outside or port == _DNS) else None
    if protocol == _UDP:
        (port,) = struct.unpack("!H", payload[2:4])
        if port == _DNS:
            return Attempt("dns", address, port, _asked_name(payload[8:]))
        return Attempt("udp", address, port) if outside else None
    return Attempt(f"protocol {protocol}", address, 0) if outside and not target.is_multicast else None


def _asked_name(query: bytes) -> str:
    labels, place = [], 12
    while query[place]:
        labels.append(query[place + 1 : place + 1 + query[place]].decode("ascii", "replace"))
        place += 1 + query[place]
    return ".".join(labels)


def _loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, _SET_FLAGS, struct.pack("16sH14x", b"lo", _UP))


def _deliver_everything_here(family: socket.AddressFamily) -> None:
    """Add the route ``local default dev lo``, by netlink; without IPv6 in the kernel there is nothing to add."""
    new_route, flags = 24, 0x0001 | 0x0004 | 0x0400  # request, acknowledge, create
    table_local, by_boot, type_local, attribute_interface = 255, 3, 2, 4
    scope = 254 if family == socket.AF_INET else 0
    index = socket.if_nametoindex("lo")
    body = struct.pack("BBBBBBBBI", family, 0, 0, 0, table_local, by_boot, scope, type_local, 0)
    body += struct.pack("HHI", 8, attribute_interface, index)
    message = struct.pack("IHHII", 16 + len(body), new_route, flags, 1, 0) + body
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as netlink:
        netlink.send(message)
        (code,) = struct.unpack("i", netlink.recv(4_096)[16:20])
    if code and family == socket.AF_INET:
        raise OSError(-code, os.strerror(-code))


_LONGEST_S = 1_800
_CONTROL = ("192.0.2.1", 443, "control.invalid")
"""An address and a name that are reserved for documentation and tests: that the watch sees them shows that it works."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressReport:
    """Result of an egress check.

    Attributes:
        preset: Its name.
        steps: What was done: build, ingest, query, aquery, stream, close; and where nothing may leave the machine,
            that a language model elsewhere is refused and one on loopback is asked.
        documents: How many were ingested.
        attempts: What it tried to reach, each once, with ``packets``; empty is what one hopes for.
        error: What ended it early, in one line, or None.
    """

    preset: str
    steps: list[str]
    documents: int
    attempts: list[dict[str, Any]] = field(default_factory=list)
    error: str | None = None

    @property
    def silent(self) -> bool:
        """Whether every step succeeded without an attempt to connect."""
        return self.error is None and not self.attempts

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {"silent": self.silent, **asdict(self)}


def run_without_network(
    preset: str,
    *,
    documents: Path | None = None,
    settings: Path | None = None,
    offline: bool = False,
) -> EgressReport:
    """Ingest and ask in a process of its own, in a network namespace, in a temporary folder.

    Args:
        preset: A row of the matrix.
        documents: A file or folder; None takes two short texts.
        settings: A TOML file.
        offline: See `build`; a preset with network services is only silent with it.

    Raises:
        PresetsError: No namespace can be made here, or its watch sees nothing.
    """
    task = {
        "preset": preset,
        "documents": str(documents.resolve()) if documents else None,
        "settings": str(settings.resolve()) if settings else None,
        "offline": offline,
    }
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # an embedded Postgres may run as another user
        done = subprocess.run(
            [sys.executable, "-m", __name__, folder],
            input=json.dumps(task),
            capture_output=True,
            text=True,
            timeout=_LONGEST_S,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            check=False,
        )
        result = Path(folder) / "result.json"
        if not result.exists():
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise PresetsError(f"The run without a network ended early (exit code {done.returncode}): {last}")
        found = json.loads(result.read_text(encoding="utf-8"))
    if "refused" in found:
        raise PresetsError(found["refused"])
    return EgressReport(**found)


# -- inside the namespace -----------------------------------------------------------------------------------------


def _child(folder: Path) -> None:
    task = json.loads(sys.stdin.read())
    result = folder / "result.json"
    try:
        enter_network_namespace()
    except PresetsError as error:
        result.write_text(json.dumps({"refused": str(error)}), encoding="utf-8")
        return
    with Watch() as control:
        _try_to_leave()
    steps: list[str] = []
    documents, ended = 0, None
    with Watch() as watch:
        try:
            documents = _work(task, folder, steps)
        except Exception as error:
            ended = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    if {attempt.protocol for attempt in control.seen()} != {"tcp", "dns"}:
        found: dict[str, Any] = {
            "refused": "The watch did not see a connection made on purpose; nothing is shown."
        }
    else:
        attempts = [{**asdict(one), "packets": count} for one, count in sorted(watch.seen().items())]
        report = EgressReport(
            preset=task["preset"], steps=steps, documents=documents, attempts=attempts, error=ended
        )
        found = asdict(report)
    result.write_text(json.dumps(found), encoding="utf-8")


def _try_to_leave() -> None:
    address, port, name = _CONTROL
    with socket.socket() as outgoing:
        outgoing.settimeout(2)
        outgoing.connect_ex((address, port))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as query:
        labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
        query.sendto(b"\0\1\1\0\0\1\0\0\0\0\0\0" + labels + b"\0\0\1\0\1", (address, 53))


def _work(task: dict[str, Any], folder: Path, steps: list[str]) -> int:
    from llama_index_presets.presets.build import build

    samples = write_samples(folder)
    engine = build(
        task["preset"], storage=folder / "storage", offline=task["offline"], settings=task["settings"]
    )
    steps.append("build")
    with engine:
        report = engine.ingest(task["documents"] or samples, show_progress=False)
        steps.append("ingest")
        engine.query(SAMPLE_QUESTION)
        steps.append("query")
        asyncio.run(engine.aquery(SAMPLE_QUESTION))
        steps.append("aquery")
        "".join(engine.stream(SAMPLE_QUESTION).response_gen)
        steps.append("stream")
    steps.append("close")
    if find_preset(task["preset"]).monitoring == "local" and installed(PROVIDERS[SERVER].module):
        _prove_refusal(task, folder / "storage", steps)
    return report.documents


def _prove_refusal(task: dict[str, Any], storage: Path, steps: list[str]) -> None:
    """Show that a model is judged by its address: one elsewhere is refused, the same one on loopback is asked.

    Raises:
        PresetsError: It is not so.
    """
    from llama_index_presets.presets.build import build

    settings = {"storage": storage, "offline": task["offline"], "settings": task["settings"]}
    try:
        build(task["preset"], llm=f"http://{_CONTROL[0]}:8080/v1#stand-in", **settings).close()
    except SettingsError:
        steps.append("refusal of a model elsewhere")
    else:
        raise PresetsError(f"A model at {_CONTROL[0]} was taken, although nothing may leave the machine.")
    with _LoopbackModel() as model, build(task["preset"], llm=model.name, **settings) as engine:
        engine.query(SAMPLE_QUESTION)
        if model.requests != 1:
            raise PresetsError(
                f"A model on loopback was asked {counted(model.requests, 'time')}; expected once."
            )
    steps.append("query of a model on loopback")


if __name__ == "__main__":
    _child(Path(sys.argv[1]))
