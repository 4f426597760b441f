"""Every kind of IP packet arrives byte for byte, both ways, whatever is cut, joined or packed together on the way."""

from __future__ import annotations

import os
import random
import socket
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

import pytest

from tests.netns.packets import (
    ACK,
    CWR,
    DONT_FRAGMENT,
    ECE,
    FIN,
    ICMP6,
    NOTHING,
    PSH,
    RST,
    SCTP,
    SYN,
    TCP,
    TIMESTAMPS,
    UDP,
    URG,
    Way,
    extension,
    fragments,
    icmp_echo,
    ip,
    tcp,
    udp,
)
from tests.netns.raw_tun import RawTun, cut, super_frame
from tools import namespaces
from tools.bench.bed import INNER_MTU, SIDES
from tools.bench.mpq import Mpq
from tools.product import Side
from tools.setns import inside

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

BATCH = 32
"""Packets under way at a time: fewer than any queue holds."""
ELSEWHERE = {4: "192.0.2.1", 6: "2001:db8:ffff::1"}
"""Not the hub's own, so that nobody answers; both ends' kernels drop what comes from or for it."""
_SILENCE = """
table inet silence {
    chain prerouting {
        type filter hook prerouting priority raw;
        ip saddr 192.0.2.1 drop
        ip daddr 192.0.2.1 drop
        ip6 saddr 2001:db8:ffff::1 drop
        ip6 daddr 2001:db8:ffff::1 drop
    }
}
"""
Direction = Literal["up", "down"]


class Ends(NamedTuple):
    """The TUNs of one tunnel, and the site's address in it by family."""

    tuns: dict[Side, RawTun]
    near: dict[int, str]


@pytest.fixture(scope="module")
def bed() -> Iterator[Mpq]:
    with Mpq(f"mpqp{os.getpid()}") as bed:
        for side in SIDES:
            namespaces.feed([*namespaces.enter(bed.name(side)), "nft", "-f", "-"], _SILENCE)
        yield bed


@pytest.fixture(scope="module")
def ends(bed: Mpq) -> Iterator[Ends]:
    with RawTun(bed, "site", bed.device) as site, RawTun(bed, "hub", "mt1d") as hub:
        yield Ends({"site": site, "hub": hub}, {4: bed.near, 6: bed.tunnels[0].near6})


class Passage:
    """One direction of one family through the tunnel."""

    def __init__(self, ends: Ends, direction: Direction, version: int) -> None:
        near, far = ends.near[version], ELSEWHERE[version]
        self.way = Way((near, far) if direction == "up" else (far, near))
        self._in, self._out = (ends.tuns[side] for side in (SIDES if direction == "up" else reversed(SIDES)))

    def assert_carried(self, packets: list[bytes]) -> None:
        """Assert that packets arrive as they are, and those of one flow in their order."""
        for at in range(0, len(packets), BATCH):
            batch = packets[at : at + BATCH]
            for packet in batch:
                self._in.send(packet)
            arrived = self._out.receive(len(batch), self._is_ours)
            if arrived != batch:  # the order may be another between flows, not within one
                assert by_flow(arrived) == by_flow(batch)

    def assert_cut(self, packet: bytes, size: int) -> None:
        """Assert that a super-packet comes out as the segments that the kernel would make of it."""
        frame = super_frame(packet, size)
        expected = cut(frame)
        self._in.send_frame(frame)
        assert self._out.receive(len(expected), self._is_ours) == expected

    def _is_ours(self, packet: bytes) -> bool:
        return (packet[8:40] if self.way.six else packet[12:20]) == self.way.packed


@pytest.fixture(params=[("up", 4), ("up", 6), ("down", 4), ("down", 6)], ids=lambda p: f"{p[0]}-IPv{p[1]}")
def passage(ends: Ends, request: pytest.FixtureRequest) -> Passage:
    return Passage(ends, *request.param)


def by_flow(packets: list[bytes]) -> dict[bytes, list[bytes]]:
    """Packets by protocol and ports, which for other protocols are just the first four bytes."""
    flows: dict[bytes, list[bytes]] = defaultdict(list)
    for packet in packets:
        protocol, start = (packet[6], 40) if packet[0] >> 4 == 6 else (packet[9], (packet[0] & 15) * 4)
        flows[bytes([protocol]) + packet[start : start + 4]].append(packet)
    return flows


def noise(size: int) -> bytes:
    """Always the same bytes."""
    return random.Random(size).randbytes(size)


# ---------------------------------------------------------------- sizes

Builder = Callable[[Way, int], bytes]
BUILDERS: dict[str, tuple[int, Builder]] = {
    "unknown": (0, lambda way, size: ip(way, 253, noise(size), number=size)),
    "udp": (8, lambda way, size: udp(way, noise(size - 8), number=size)),
    "tcp": (20, lambda way, size: tcp(way, noise(size - 20), number=size, sequence=(size - 20) * (size - 21) // 2)),
}
"""Smallest payload of IP, and a packet with one of `size` bytes. The TCP segments follow one another as in a stream
whose every segment is one byte longer."""


@pytest.mark.parametrize("kind", BUILDERS)
def test_every_size_up_to_the_mtu(passage: Passage, kind: str) -> None:
    smallest, build = BUILDERS[kind]
    largest = INNER_MTU - (40 if passage.way.six else 20)
    passage.assert_carried([build(passage.way, size) for size in range(smallest, largest + 1)])


def test_jumbo_datagrams_in_fragments(bed: Mpq) -> None:
    """The largest there are: 47 fragments each, cut and joined by the kernels."""
    tunnel = bed.tunnels[0]
    for near, far, header in ((tunnel.near, tunnel.far, 28), (tunnel.near6, tunnel.far6, 8)):
        data = noise(65_535 - header)
        with bound(bed, "site", near) as site, bound(bed, "hub", far) as hub:
            for sender, receiver in ((site, hub), (hub, site)):
                sender.sendto(data, receiver.getsockname()[:2])
                assert receiver.recv(65_536) == data


def bound(bed: Mpq, side: Side, address: str) -> socket.socket:
    """A UDP socket at one end of the tunnel that waits no longer than 5 s."""
    with open(namespaces.NETNS / bed.name(side)) as home, inside(home.fileno()):
        sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
        if side == "site":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, bed.device.encode())
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    sock.settimeout(5)
    sock.bind((address, 0))
    return sock


# ---------------------------------------------------------------- kinds


def test_kinds_of_packets(passage: Passage) -> None:
    way = passage.way
    init = bytes.fromhex("138813890000000000000000") + bytes.fromhex("01000014") + noise(16)
    packets = [
        icmp_echo(way, b""),
        icmp_echo(way, noise(1000)),
        ip(way, SCTP, init),
        *(ip(way, protocol, noise(protocol)) for protocol in range(256)),
        *(ip(way, protocol) for protocol in (TCP, UDP, SCTP, NOTHING, 255)),
        udp(way, b""),
        udp(way, noise(99), checksum=0),
        udp(way, noise(99), checksum=0x1234),
        udp(way, bytes(1000)),
        tcp(way, noise(99), checksum=0x1234),
        tcp(way, b""),
        ip(way, TCP, noise(19)),
        ip(way, UDP, noise(7)),
        ip(way, UDP, b"\x0f\xa0\x0f\xa1\xff\xff\x00\x00" + noise(50)),
        *fragments(way, UDP, noise(3000), 1344),
        *fragments(way, TCP, tcp(way, noise(3000))[-3020:], 1344),
        *(tcp(way, noise(40), ttl=ttl) for ttl in (0, 1, 255)),
    ]
    passage.assert_carried(packets)


def test_ip_options_and_extension_headers(passage: Passage) -> None:
    way, datagram = passage.way, udp(passage.way, noise(100))
    if way.six:
        body = datagram[40:]
        packets = [
            ip(way, 0, extension(UDP, b"\x05\x02\x00\x00") + body),  # router alert
            ip(way, 60, extension(UDP, b"\x01\x0c" + bytes(12)) + body),
            ip(
                way,
                0,
                extension(60, bytes(6)) + extension(43, bytes(6)) + extension(UDP, b"\x04\x00" + bytes(4)) + body,
            ),
            ip(way, 60, extension(TCP, bytes(6)) + tcp(way, noise(100))[40:]),
            ip(way, 51, extension(ICMP6, noise(22)) + icmp_echo(way, noise(9))[40:]),
        ]
    else:
        body, segment = datagram[20:], tcp(way, noise(100))[20:]
        packets = [
            ip(way, UDP, body, options=b"\x94\x04\x00\x00"),  # router alert
            ip(way, UDP, body, options=b"\x44\x28\x05\x00" + bytes(36)),  # time stamps, as long as options can be
            ip(way, TCP, segment, options=b"\x01\x01\x01\x00"),
            ip(way, TCP, segment, options=b"\x07\x07\x04\x00\x00\x00\x00\x00"),
        ]
    passage.assert_carried(packets)


def test_every_dscp_and_ecn(passage: Passage) -> None:
    passage.assert_carried(
        [
            packet
            for tos in range(256)
            for packet in (udp(passage.way, noise(tos), tos=tos), tcp(passage.way, noise(tos), tos=tos))
        ]
    )


# ---------------------------------------------------------------- neighbours that might be joined


class Stream:
    """Segments of one TCP stream, each following the one before."""

    def __init__(self, way: Way, port: int = 5000) -> None:
        self._way, self._port = way, port
        self._sequence, self._number = 2**32 - 5000, 65_530

    def segment(self, size: int = 1000, skip: int = 0, **fields: int | bytes) -> bytes:
        """The next one; `skip` leaves bytes of the stream out, or says some again."""
        self._sequence += skip
        usual = {"sequence": self._sequence, "number": self._number, "port": self._port, "options": TIMESTAMPS}
        packet = tcp(self._way, noise(size), **{**usual, **fields})  # type: ignore[arg-type]  # values of several types
        self._sequence += size
        self._number += 1
        return packet


NEIGHBOURS: dict[str, Sequence[Mapping[str, int | bytes]]] = {
    "alike": [{}] * 20,
    "shorter last": [*[{}] * 5, {"size": 999}, *[{}] * 5, {"size": 1}],
    "longer": [{}, {}, {"size": 1001}, {}, {}],
    "empty between": [{}, {"size": 0}, {}, {"size": 0}, {"size": 0}, {}],
    "a gap": [{}, {}, {"skip": 1000}, {}, {"skip": 1}, {}],
    "said again": [{}, {}, {"skip": -1000}, {"skip": -3000}, {}, {}],
    "PSH": [{}, {"flags": ACK | PSH}, {}, {}, {"flags": ACK | PSH}, {"flags": ACK | PSH}, {}],
    "FIN": [{}, {}, {"flags": ACK | FIN}, {}, {"flags": ACK | FIN | PSH}],
    "SYN, RST": [{"flags": SYN}, {}, {"flags": SYN | ACK}, {}, {"flags": RST}, {"flags": RST | ACK}, {}],
    "URG": [{}, {"flags": ACK | URG, "urgent": 9}, {}, {"flags": ACK | URG, "urgent": 500}, {"urgent": 4}, {}],
    "no ACK": [{}, {"flags": 0}, {"flags": 0}, {}, {"flags": PSH}, {"flags": 255}, {}],
    "ECE, CWR": [{"flags": ACK | ECE}] * 3 + [{"flags": ACK | CWR}, {}, {"flags": ACK | ECE | CWR}, {}, {}],
    "CE": [{"tos": 2}, {"tos": 2}, {"tos": 3}, {"tos": 2}, {"tos": 3}, {"tos": 3}, {"tos": 1}, {"tos": 1}, {}],
    "DSCP": [{"tos": 0xB8}, {"tos": 0xB8}, {"tos": 0x20}, {"tos": 0xB8}],
    "TTL": [{}, {}, {"ttl": 63}, {}, {"ttl": 63}, {"ttl": 63}],
    "IP ID": [{}, {"number": 5}, {"number": 5}, {"number": 6}, {"number": 8}, {"number": 7}, {"number": 0}],
    "DF": [{}, {"fragment": 0}, {"fragment": 0}, {}, {"fragment": 0x8000 | DONT_FRAGMENT}, {"fragment": 0x8000}],
    "window": [{}, {}, {"window": 511}, {"window": 511}, {}],
    "acknowledged": [{}, {}, {"acknowledged": 8}, {"acknowledged": 8}, {}],
    "options": [
        {},
        {"options": b""},
        {"options": b""},
        {"options": b"\x01" * 4},
        {"options": TIMESTAMPS[:-1] + b"\x09"},
    ],
    "SACK": [{}, {"options": b"\x01\x01\x05\x0a" + noise(8)}, {"options": b"\x01\x01\x05\x0a" + noise(8)}, {}],
    "bad checksums": [
        {},
        {},
        {"checksum": 0x1111},
        {},
        {"checksum": 0x1111},
        {"checksum": 0},
        {"checksum": 0xFFFF},
        {},
    ],
    "all zero": [{"size": 1, "options": b""}] * 20,
}
"""Changes of successive segments against a stream whose segments are all alike."""


@pytest.mark.parametrize("case", NEIGHBOURS)
def test_tcp_segments_beside_each_other(passage: Passage, case: str) -> None:
    stream = Stream(passage.way)
    passage.assert_carried([stream.segment(**change) for change in NEIGHBOURS[case]])  # type: ignore[arg-type]  # values of several types


def test_udp_datagrams_beside_each_other(passage: Passage) -> None:
    sizes = [100, 100, 100, 50, 100, 101, 0, 100, 0, 0, 1, 1, 1, 1000, 1000, 999, 1000]
    datagrams = [udp(passage.way, noise(size), number=i) for i, size in enumerate(sizes)]
    odd = [udp(passage.way, noise(100), **change) for change in ({"checksum": 0}, {"checksum": 9}, {"tos": 3}, {})]
    passage.assert_carried([*datagrams, *odd, *odd, *datagrams[:3]])


def test_flows_that_take_turns(passage: Passage) -> None:
    streams = [Stream(passage.way, port) for port in (5000, 5002, 6000)]
    packets = []
    for turn in range(30):
        packets += [stream.segment(size=1 + turn * 40 % 1000) for stream in streams]
        packets.append(udp(passage.way, noise(200), port=5000, number=turn))
    passage.assert_carried(packets)


# ---------------------------------------------------------------- super-packets

HEADERS = 80
"""Room that the headers of a segment may need."""


@pytest.mark.parametrize("size", [1, 535, INNER_MTU - HEADERS])
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"flags": ACK | PSH | FIN},
        {"flags": ACK | ECE | CWR, "tos": 0xBA, "options": TIMESTAMPS},
        {"tos": 3, "ttl": 7, "number": 65_500},
        {"sequence": 2**32 - 1000, "options": b"\x01" * 20},
    ],
    ids=["plain", "PSH FIN", "CWR", "CE", "wrapping"],
)
def test_tcp_super_packets(passage: Passage, size: int, fields: dict[str, int | bytes]) -> None:
    for length in (size + 1, 20 * size, 20 * size + 1 + size // 2):
        passage.assert_cut(tcp(passage.way, noise(length), **fields), size)  # type: ignore[arg-type]  # values of several types


@pytest.mark.parametrize("size", [1, 100, INNER_MTU - HEADERS])
def test_udp_super_packets(passage: Passage, size: int) -> None:
    for length in (size + 1, 20 * size, 20 * size + 1 + size // 2):
        passage.assert_cut(udp(passage.way, noise(length), tos=0x29, number=65_530), size)
