"""Super-packets from a TUN become the packets that the kernel would have made of them."""

from __future__ import annotations

import random
import struct

import pytest

from mpq_worker._datapath import segment
from tools.inner_packets import ACK, CWR, ECE, FIN, PSH, super_packet, tcp, udp

FOUR, SIX = ("10.1.2.3", "192.0.2.9"), ("2001:db8::1", "2001:db8::99")
TIMESTAMP = bytes.fromhex("0101080a0000000100000002")


def noise(size: int) -> bytes:
    return random.Random(size).randbytes(size)


@pytest.mark.parametrize("addresses", [FOUR, SIX])
@pytest.mark.parametrize("size", [1, 1399, 1400, 1401, 2800, 4321, 60_000])
def test_tcp(addresses: tuple[str, str], size: int) -> None:
    data = noise(size)
    whole = tcp(
        data, *addresses, options=TIMESTAMP, sequence=2**32 - 1000, flags=ACK | PSH | FIN, tos=0xB9, number=65535
    )
    expected = []
    for i, at in enumerate(range(0, size, 1400)):
        last = at + 1400 >= size
        flags = ACK | (PSH | FIN if last else 0)
        expected.append(
            tcp(
                data[at : at + 1400],
                *addresses,
                options=TIMESTAMP,
                sequence=2**32 - 1000 + at,
                flags=flags,
                tos=0xB9,
                number=65535 + i,
            )
        )
    assert segment(super_packet(whole, 1400)) == expected


@pytest.mark.parametrize("addresses", [FOUR, SIX])
def test_udp(addresses: tuple[str, str]) -> None:
    data = noise(3333)
    expected = [udp(data[at : at + 500], *addresses, number=7 + i) for i, at in enumerate(range(0, 3333, 500))]
    assert segment(super_packet(udp(data, *addresses, number=7), 500)) == expected


def test_only_the_first_segment_says_that_the_window_was_reduced() -> None:
    frame = super_packet(tcp(noise(3000), *FOUR, flags=ACK | ECE | CWR), 1000)
    packets = segment(frame[:1] + b"\x81" + frame[2:])
    assert packets is not None
    assert [packet[33] for packet in packets] == [ACK | ECE | CWR, ACK | ECE, ACK | ECE]


def test_a_checksum_is_completed_without_segmentation() -> None:
    for packet in (tcp(noise(99), *FOUR), udp(noise(100), *SIX)):
        frame = super_packet(packet, 1400)
        assert segment(frame[:1] + b"\x00" + frame[2:]) == [packet]


def test_without_a_word_from_the_kernel_a_packet_stays_as_it_is() -> None:
    packet = udp(noise(40), *FOUR)
    assert segment(bytes(10) + packet) == [packet]


@pytest.mark.parametrize(
    "header",
    [
        (1, 1, 40, 0, 20, 16),  # segments of no size
        (0, 1, 40, 1000, 20, 16),  # segmentation without checksum
        (1, 4, 40, 1000, 20, 16),  # TCP over IPv6, which it is not
        (1, 1, 40, 1000, 24, 16),  # a transport header that begins elsewhere
        (1, 1, 40, 1000, 19, 16),
        (1, 1, 40, 1000, 20, 6),  # a checksum that is not TCP's
        (1, 0, 40, 1000, 20, 60_000),  # a checksum beyond the end
        (1, 0, 40, 1000, 65_535, 65_535),
    ],
)
def test_a_header_that_lies_is_refused(header: tuple[int, ...]) -> None:
    packet = tcp(noise(3000), *FOUR)
    assert segment(super_packet(packet, 1000)) is not None
    assert segment(struct.pack("=BBHHHH", *header) + packet) is None


def test_a_header_length_within_tcp_that_lies_is_refused() -> None:
    frame = bytearray(super_packet(tcp(noise(50), *FOUR), 10))
    frame[10 + 32] = 0x10
    assert segment(bytes(frame)) is None
    frame[10 + 32] = 0xF0
    assert segment(bytes(frame)) is not None
    assert segment(bytes(frame[:70])) is None
