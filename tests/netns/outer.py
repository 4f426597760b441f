"""What is seen of the tunnels in the middle of the network: the UDP packets between site and hub."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from typing import NamedTuple

from tests.netns.product import System
from tools.sockets import widen
from tools.topology import HUB, HUB6, WANS


class Outer(NamedTuple):
    """A UDP packet between site and hub; `up` is from the site, `wan` the number of the WAN that it passed."""

    wan: int
    up: bool
    site: tuple[str, int]
    hub: tuple[str, int]
    dscp: int
    payload: bytes


@contextmanager
def sniffed(system: System) -> Iterator[list[Outer]]:
    """All of them that pass the router's WAN ports meanwhile; the list is filled at the end."""
    found: list[Outer] = []
    with system.inside("router"):
        sniffer = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0003))
    with sniffer:
        sniffer.setblocking(False)
        widen(sniffer)
        yield found
        found += _drain(sniffer)


def _drain(sniffer: socket.socket) -> Iterator[Outer]:
    wans = {f"r{k}": k for k in WANS}
    with suppress(BlockingIOError):
        while True:
            packet, (port, *_) = sniffer.recvfrom(65_536)
            outer = _outer(wans[port], packet) if port in wans else None
            if outer is not None:
                yield outer


def _outer(wan: int, packet: bytes) -> Outer | None:
    """None for what is not UDP (ICMP, neighbours)."""
    if packet[:1] and packet[0] >> 4 == 4 and packet[9] == socket.IPPROTO_UDP:
        dscp, source, to, udp = packet[1] >> 2, packet[12:16], packet[16:20], packet[20:]
        assert packet[6] & 0x40, "DF"
    elif packet[:1] and packet[0] >> 4 == 6 and packet[6] == socket.IPPROTO_UDP:
        dscp = (packet[0] << 4 | packet[1] >> 4) >> 2 & 0x3F
        source, to, udp = packet[8:24], packet[24:40], packet[40:]
    else:
        return None
    source_port, port = struct.unpack_from("!HH", udp)
    ends = (str(ip_address(source)), source_port), (str(ip_address(to)), port)
    up = ends[1][0] in (HUB, HUB6)
    return Outer(wan, up, ends[not up], ends[up], dscp, udp[8:])
