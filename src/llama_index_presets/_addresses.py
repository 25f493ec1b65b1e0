"""Network addresses: which of them stay on this machine. Standard library alone."""

from __future__ import annotations

import ipaddress
import socket
from urllib.parse import urlsplit

__all__ = ["is_loopback"]


def is_loopback(address: str) -> bool:
    """Whether an address, with or without a scheme, is on this machine: decided by what its host resolves to.

    A host with one address elsewhere is not; nor is one that cannot be resolved. A Unix socket is.

    Example:
        >>> is_loopback("http://127.0.0.1:6006"), is_loopback("[::1]:80"), is_loopback("http://10.0.0.7/v1")
        (True, True, False)
    """
    if address.startswith(("unix:", "http+unix:")):
        return True
    try:
        host = urlsplit(address if "//" in address else f"//{address}").hostname or ""
    except ValueError:
        return False
    if host == "localhost":
        return True
    addresses = _resolved(host)
    return bool(addresses) and all(ipaddress.ip_address(one).is_loopback for one in addresses)


def _resolved(host: str) -> set[str]:
    """IP addresses of a host, which may be one itself; empty where there is none."""
    if not host:
        return set()
    try:
        return {str(ipaddress.ip_address(host))}
    except ValueError:
        pass
    try:
        return {str(info[4][0]).partition("%")[0] for info in socket.getaddrinfo(host, None)}
    except (OSError, UnicodeError):
        return set()
