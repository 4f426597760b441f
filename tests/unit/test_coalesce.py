"""What is joined for the TUN can be cut into the same packets again, and no flow is reordered."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpq_worker._datapath import segment
from tools.inner_packets import ACK, CWR, ECE, FIN, PSH, ip, tcp, udp
from tools.paths import ends

FOUR, SIX = ("10.1.2.3", "192.0.2.9"), ("2001:db8::1", "2001:db8::99")
TIMESTAMP = bytes.fromhex("0101080a0000000100000002")
LATER = bytes.fromhex("0101080a0000000200000002")


def through(packets: list[bytes], *, tcp_too: bool = True, udp_too: bool = True) -> list[bytes]:
    """The frames that come out of a tunnel."""
    site, hub = ends()
    hub.datapath.offload(tcp=tcp_too, udp=udp_too)
    datagrams = site.send(*packets)
    for data in datagrams:
        hub.datapath.datagram(data, 0.0)
    hub.datapath.flush(0.0)
    return hub.datapath.take_frames()


def apart(frames: list[bytes]) -> list[bytes]:
    packets = []
    for frame in frames:
        pieces = segment(frame)
        assert pieces is not None
        packets += pieces
    return packets


def stream(addresses: tuple[str, str], sizes: list[int], **fields: int) -> list[bytes]:
    packets, sequence = [], 1000
    for i, size in enumerate(sizes):
        packets.append(
            tcp(bytes([i]) * size, *addresses, sequence=sequence, options=TIMESTAMP, number=50 + i, **fields)  # type: ignore[arg-type]  # for mypy they may be any parameter
        )
        sequence += size
    return packets


@pytest.mark.parametrize("addresses", [FOUR, SIX])
def test_a_stream_becomes_one_frame(addresses: tuple[str, str]) -> None:
    packets = stream(addresses, [1200] * 20 + [77])
    frames = through(packets)
    assert len(frames) == 1
    assert apart(frames) == packets


@pytest.mark.parametrize("addresses", [FOUR, SIX])
def test_datagrams_become_one_frame(addresses: tuple[str, str]) -> None:
    packets = [udp(bytes([i]) * 200, *addresses, number=9 + i) for i in range(30)]
    frames = through(packets)
    assert len(frames) == 1
    assert apart(frames) == packets
    assert through(packets, udp_too=False) == [bytes(10) + packet for packet in packets]


def test_what_is_pushed_ends_a_frame() -> None:
    packets = stream(FOUR, [100] * 3)
    packets[1] = tcp(bytes([1]) * 100, *FOUR, sequence=1100, options=TIMESTAMP, number=51, flags=ACK | PSH)
    frames = through(packets)
    assert [len(segment(frame) or []) for frame in frames] == [2, 1]
    assert apart(frames) == packets


OTHERWISE: dict[str, dict[str, Any]] = {
    "acknowledgement": {"acknowledged": 78},
    "window": {"window": 501},
    "timestamp": {"options": LATER},
    "tos": {"tos": 1},
    "identification": {"number": 99},
    "flags": {"flags": ACK | ECE},
    "reset": {"flags": ACK | 0x04},
    "window reduced": {"flags": ACK | CWR},
    "gap": {"sequence": 1201},
}


@pytest.mark.parametrize("what", OTHERWISE)
def test_what_differs_stays_apart(what: str) -> None:
    first, second = stream(FOUR, [100] * 2)
    fields: dict[str, Any] = {"sequence": 1100, "options": TIMESTAMP, "number": 51} | OTHERWISE[what]
    other = tcp(bytes([1]) * 100, *FOUR, **fields)
    assert len(through([first, second])) == 1
    assert through([first, other]) == [bytes(10) + first, bytes(10) + other]


@pytest.mark.parametrize("make", [tcp, udp])
def test_a_wrong_checksum_stays_wrong(make: object) -> None:
    packets = [make(bytes(100), *FOUR, number=i, **({"sequence": 100 * i} if make is tcp else {})) for i in range(3)]  # type: ignore[operator]  # tcp or udp
    assert len(through(packets)) == 1
    bad = [packet[:-1] + b"\x01" for packet in packets]
    assert through(bad) == [bytes(10) + packet for packet in bad]


def test_a_fragment_or_a_stranger_overtakes_nobody() -> None:
    first, second = stream(FOUR, [100] * 2)
    strangers = [ip(b"icmp", 1, *FOUR), ip(bytes(9), 132, *SIX), udp(b"", *FOUR)]
    fragment = bytearray(udp(bytes(64), *FOUR))
    fragment[6] = 0x20
    for stranger in [*strangers[:2], bytes(fragment)]:
        assert through([first, stranger, second]) == [bytes(10) + p for p in (first, stranger, second)]


class Sender:
    """Flows whose packets mostly follow one another."""

    def __init__(self, flow: int) -> None:
        self.flow, self.sequence, self.number = flow, 0, 0

    def packet(self, kind: str, size: int, skip: int) -> bytes:
        addresses = FOUR if self.flow % 2 else SIX
        self.number += 1 + (skip == 1)
        if kind == "udp":
            return udp(bytes([size & 255]) * size, *addresses, ports=(self.flow, 9), number=self.number)
        flags = {"tcp": ACK, "push": ACK | PSH, "fin": ACK | FIN, "ecn": ACK | ECE, "ack": ACK, "cwr": ACK | CWR}[
            kind
        ]
        data = b"" if kind == "ack" else bytes([size & 255]) * size
        self.sequence += 5 * (skip == 2)
        made = tcp(data, *addresses, ports=(self.flow, 9), sequence=self.sequence, number=self.number, flags=flags)
        self.sequence += len(data)
        return made


steps = st.tuples(
    st.integers(1, 10),
    st.sampled_from(["tcp", "tcp", "tcp", "udp", "udp", "push", "fin", "ecn", "ack", "cwr"]),
    st.sampled_from([1, 100, 100, 100, 1300]),
    st.integers(0, 12),
)


@settings(max_examples=150)
@given(st.lists(steps, max_size=80))
def test_whatever_comes_goes(plan: list[tuple[int, str, int, int]]) -> None:
    senders = {flow: Sender(flow) for flow in range(1, 11)}
    packets = [senders[flow].packet(kind, size, skip) for flow, kind, size, skip in plan]
    result = apart(through(packets))
    assert sorted(result) == sorted(packets)
    flows: dict[tuple[bytes, int], list[bytes]] = defaultdict(list)
    seen: dict[tuple[bytes, int], list[bytes]] = defaultdict(list)
    for where, sequence in ((flows, packets), (seen, result)):
        for packet in sequence:
            start = 20 if packet[0] >> 4 == 4 else 40
            protocol = packet[9] if start == 20 else packet[6]
            where[packet[start : start + 2], protocol].append(packet)
    assert seen == flows
