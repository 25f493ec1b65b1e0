"""A network that leads nowhere: it sees what libraries in C and Rust attempt, and a local preset attempts nothing."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from socket import AF_INET, AF_INET6, inet_pton

import pytest
from typer.testing import CliRunner

from llama_index_presets.cli import app
from llama_index_presets.diagnose.no_egress import Attempt, parse_packet

ROOT = Path(__file__).parents[3]
SCRIPT = """
import json, socket
from llama_index_presets.diagnose.no_egress import Watch, enter_network_namespace
enter_network_namespace()
with Watch() as watch:
    import psycopg2
    try:
        psycopg2.connect("host=192.0.2.7 port=5432 connect_timeout=2")
    except psycopg2.OperationalError:
        pass
    import pyarrow.fs
    try:
        pyarrow.fs.S3FileSystem(access_key="a", secret_key="b", endpoint_override="192.0.2.8:9000", scheme="http",
                                connect_timeout=1, request_timeout=1).get_file_info("bucket/key")
    except OSError:
        pass
    with socket.socket() as here:
        here.connect_ex(("127.0.0.1", 9))
print(json.dumps(sorted({(one.protocol, one.address, one.port) for one in watch.seen()})))
"""


def test_sockets_of_native_libraries_are_seen() -> None:
    """libpq and Arrow's S3 client connect without Python's knowledge; loopback is no attempt."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": "src", "AWS_EC2_METADATA_DISABLED": "true"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [["tcp", "192.0.2.7", 5432], ["tcp", "192.0.2.8", 9000]]


def test_healthcare_tries_to_reach_nothing() -> None:
    """Ingest, query, async, streamed, with nothing told to be offline; the report says what was done."""
    done = CliRunner().invoke(app, ["doctor", "healthcare", "--no-egress", "--json"])
    report = json.loads(done.stdout)
    assert done.exit_code == 0, (report["attempts"], report["error"], report["steps"])
    assert report["silent"] and report["attempts"] == [] and report["documents"] == 2
    assert report["steps"] == [
        "build", "ingest", "query", "aquery", "stream", "close",
        "refusal of a model elsewhere", "query of a model on loopback",
    ]  # fmt: skip


def ip(protocol: int, target: str, payload: bytes) -> bytes:
    if ":" in target:
        return (
            struct.pack("!IHBB16s", 0x60000000, len(payload), protocol, 64, bytes(16))
            + inet_pton(AF_INET6, target)
            + payload
        )
    return (
        struct.pack("!BBHIBBHI", 0x45, 0, 20 + len(payload), 0, 64, protocol, 0, 0)
        + inet_pton(AF_INET, target)
        + payload
    )


def tcp(port: int, flags: int) -> bytes:
    return struct.pack("!HHIIBBHHH", 4000, port, 0, 0, 0x50, flags, 0, 0, 0)


def udp(port: int, data: bytes = b"") -> bytes:
    return struct.pack("!HHHH", 4000, port, 8 + len(data), 0) + data


QUERY = bytes(12) + b"\3www\7example\0\0\1\0\1"


@pytest.mark.parametrize(
    ("packet", "attempt"),
    [
        (ip(6, "192.0.2.1", tcp(443, 0x02)), Attempt("tcp", "192.0.2.1", 443)),
        (ip(6, "2001:db8::1", tcp(443, 0x02)), Attempt("tcp", "2001:db8::1", 443)),
        (ip(6, "192.0.2.1", tcp(443, 0x12)), None),  # an answer
        (ip(6, "192.0.2.1", tcp(443, 0x14)), None),  # a refusal
        (ip(6, "127.0.0.1", tcp(443, 0x02)), None),
        (ip(17, "192.0.2.1", udp(123)), Attempt("udp", "192.0.2.1", 123)),
        (ip(17, "::1", udp(123)), None),
        (ip(17, "127.0.0.53", udp(53, QUERY)), Attempt("dns", "127.0.0.53", 53, "www.example")),
        (ip(1, "192.0.2.1", b"\x08\0"), Attempt("icmp", "192.0.2.1", 0)),
        (ip(1, "192.0.2.1", b"\x03\3"), None),  # unreachable
        (ip(132, "192.0.2.1", b""), Attempt("protocol 132", "192.0.2.1", 0)),
        (b"", None),
        (b"\x45\0", None),
    ],
)  # fmt: skip
def test_a_packet_is_an_attempt_when_it_begins_something_outside(
    packet: bytes, attempt: Attempt | None
) -> None:
    """Answers, refusals and loopback are none; a question to any name server is one."""
    assert parse_packet(packet) == attempt
