"""A network that leads nowhere and is watched: a Linux network namespace in which every address is this machine.

In it, packets to any address are delivered to the loopback interface, where nobody listens, and a packet socket sees
them all: also those of libraries in C and Rust, which no hook in Python can see, and the names that were asked of any
name server. Not seen are sockets in the file system (a local daemon could pass a message on).
"""

from __future__ import annotations

import ctypes
import fcntl
import ipaddress
import os
import socket
import struct
import threading
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from llama_index_presets.errors import PresetsError

__all__ = ["Attempt", "Watch", "enter_network_namespace", "parse_packet"]

_NEW_USER, _NEW_NET = 0x10000000, 0x40000000
_SET_FLAGS, _UP = 0x8914, 0x1
_ALL_PROTOCOLS, _OUTGOING, _IPV6 = 0x0003, 4, 0x86DD
_TCP, _UDP, _ICMP, _ICMP6 = 6, 17, 1, 58
_SYN_ACK, _SYN = 0x12, 0x02
_DNS = 53


@dataclass(frozen=True, slots=True, order=True)
class Attempt:
    """Something that would have left the machine, or would have asked the network for a name.

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
    """Leave the network of the machine for one of this process and its children alone.

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
            Path("/proc/self/setgroups").write_text("deny")
            Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
            Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
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
    """Sees every packet on the loopback interface of this namespace, until the end of a ``with`` block."""

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
        """What was attempted, and in how many packets; complete after the block."""
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
    """What an IP packet is for; None for answers, for what stays on loopback, and for what is no attempt.

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
