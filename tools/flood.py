"""A flood of UDP datagrams with spoofed IPv4 sources, as fast as one process can send: `python -m tools.flood ORDER`.

For the namespace of a lab's router only. `initials` are first packets of QUIC connections as a site would send them,
each a proper one; `garbage` is random bytes of every length up to a full datagram. Both are made beforehand and sent
again and again, each time from another address and port of 11.0.0.0/8, until stdin ends or `seconds` are over. The
report is JSON on stdout.
"""

from __future__ import annotations

import random
import select
import socket
import struct
import sys
import time
from ipaddress import IPv4Address
from typing import Literal

import msgspec

from mpq_worker.contract import ConfigureSite, Credentials, TrafficClass, door_of
from mpq_worker.tunnel import SiteTunnel

_DISTINCT = 256
_MAX_PAYLOAD = 1252
_BATCH = 64
_SPOOFED = 11 << 24


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What to send where. `ca` and `certificate` are PEM texts of any site: nobody gets as far as to check them."""

    kind: Literal["initials", "garbage"]
    hub: str
    port: int
    hub_name: str
    traffic_class: TrafficClass
    ca: str = ""
    certificate: str = ""
    seconds: float = 120.0
    seed: int = 1


class Report(msgspec.Struct, frozen=True):
    """Datagrams sent, those that the kernel refused, and in how many seconds."""

    sent: int
    refused: int
    seconds: float


def payloads(order: Order) -> list[bytes]:
    """A stock of datagrams to send."""
    chance = random.Random(order.seed)
    if order.kind == "garbage":
        return [chance.randbytes(1 + chance.randrange(_MAX_PAYLOAD)) for _ in range(_DISTINCT)]
    return [_initial(order) for _ in range(_DISTINCT)]


def flood(order: Order) -> Report:
    """Send until stdin ends or the time is over. Raises PermissionError without CAP_NET_RAW."""
    chance = random.Random(order.seed)
    hub = IPv4Address(order.hub).packed
    packets = [_packet(hub, order.port, data) for data in payloads(order)]
    print("ready", flush=True)
    sent = refused = 0
    begin = time.monotonic()
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
        while time.monotonic() - begin < order.seconds and not select.select([sys.stdin], [], [], 0)[0]:
            for packet in chance.choices(packets, k=_BATCH):
                struct.pack_into("!I", packet, 12, _SPOOFED | chance.getrandbits(24))
                struct.pack_into("!H", packet, 20, 1024 + chance.getrandbits(15))
                try:
                    sock.sendto(packet, (order.hub, 0))
                    sent += 1
                except OSError:
                    refused += 1
    return Report(sent, refused, time.monotonic() - begin)


def _initial(order: Order) -> bytes:
    """The first datagram of a connection that is new each time."""
    config = ConfigureSite(
        name="flood",
        site="flood",
        traffic_class=order.traffic_class,
        hub_name=order.hub_name,
        hub_address=(order.hub, order.port),
        door=door_of(order.traffic_class),
        inner=("10.200.10.1",),
        credentials=Credentials(order.ca, order.certificate),
    )
    now = time.monotonic()
    core = SiteTunnel(config, now)
    core.handle_timer(now)
    return core.poll_transmit(now)[0][0]


def _packet(hub: bytes, port: int, data: bytes) -> bytearray:
    """IPv4 header (RFC 791; the kernel fills in checksum and identification), UDP without a checksum, payload."""
    size = 28 + len(data)
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, size, 0, 0, 64, socket.IPPROTO_UDP, 0, bytes(4), hub)
    return bytearray(head + struct.pack("!HHHH", 0, port, 8 + len(data), 0) + data)


if __name__ == "__main__":
    report = flood(msgspec.json.decode(sys.argv[1], type=Order))
    sys.stdout.buffer.write(msgspec.json.encode(report))
