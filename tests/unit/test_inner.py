"""What is read of inner packets, and the ICMP errors, checked by other means than those that made them."""

from __future__ import annotations

import struct
from ipaddress import ip_address

import pytest

from mpq_worker import inner
from tests.sim.packets import packet

V4, V6 = ("10.200.11.5", "10.200.11.254"), ("fd00::5", "fd00::fe")
REPORTER4, REPORTER6 = ip_address("10.200.11.1").packed, ip_address("fd00::1").packed


def is_sound(data: bytes) -> bool:
    """Whether the one's complement sum of `data` with its checksum is zero: modulo 2^16 - 1, RFC 1071 section 2."""
    total = sum(byte << (8 if index % 2 == 0 else 0) for index, byte in enumerate(data))
    return total != 0 and total % 0xFFFF == 0


def dont_fragment(data: bytes) -> bytes:
    return data[:6] + bytes((data[6] | 0x40,)) + data[7:]


def too_big(data: bytes, mtu: int, reporter: bytes | None) -> bytes | None:
    where = inner.addresses(data)
    assert where is not None
    return inner.too_big(data, where, mtu, reporter)


@pytest.mark.parametrize("ends", [V4, V6])
def test_addresses(ends: tuple[str, str]) -> None:
    where = inner.addresses(packet(*ends))
    assert where is not None
    assert (ip_address(where.source), ip_address(where.destination)) == (ip_address(ends[0]), ip_address(ends[1]))


@pytest.mark.parametrize("ends", [V4, V6])
def test_only_whole_packets_are_packets(ends: tuple[str, str]) -> None:
    data = packet(*ends)
    for length in range(len(data)):
        assert inner.addresses(data[:length]) is None
    assert inner.addresses(data + b"\x00") is None


@pytest.mark.parametrize("first", [0x00, 0x35, 0x44, 0x50, 0x75, 0xF5])
def test_other_versions_and_short_headers(first: int) -> None:
    assert inner.addresses(bytes((first,)) + packet(*V4)[1:]) is None


@pytest.mark.parametrize(
    ("destination", "local"),
    [
        *((address, True) for address in ("224.0.0.1", "239.255.255.250", "169.254.1.1", "ff02::2", "fe80::1")),
        *((address, True) for address in ("febf::1", "ff05::1:3")),
        *((address, False) for address in ("10.0.0.1", "169.253.1.1", "240.0.0.1", "fec0::1", "fd00::1")),
    ],
)
def test_local_traffic(destination: str, local: bool) -> None:
    source = "fd00::1" if ":" in destination else "10.0.0.9"
    where = inner.addresses(packet(source, destination))
    assert where is not None
    assert inner.is_local(where) is local


def test_icmp_fragmentation_needed() -> None:
    data = dont_fragment(packet(*V4, 7, 1500))
    error = too_big(data, 1400, REPORTER4)
    assert error is not None
    assert inner.addresses(error) == (REPORTER4, ip_address(V4[0]).packed)
    assert (error[9], error[20], error[21]) == (1, 3, 4)
    assert struct.unpack_from("!HH", error, 24) == (0, 1400)
    assert error[28:] == data[:28]
    assert is_sound(error[:20])
    assert is_sound(error[20:])


def test_icmp_quotes_options_and_eight_bytes() -> None:
    plain = dont_fragment(packet(*V4, 7, 1500))
    data = b"\x4f" + plain[1:20] + b"\x01" * 40 + plain[60:]
    error = too_big(data, 1400, REPORTER4)
    assert error is not None
    assert error[28:] == data[:68]
    assert is_sound(error[20:])


@pytest.mark.parametrize("size", [1401, 1500, 9000])
def test_icmpv6_packet_too_big(size: int) -> None:
    data = packet(*V6, 7, size)
    error = too_big(data, 1400, REPORTER6)
    assert error is not None
    assert inner.addresses(error) == (REPORTER6, ip_address(V6[0]).packed)
    assert len(error) <= 1280
    assert (error[6], error[40], error[41]) == (58, 2, 0)
    assert struct.unpack_from("!I", error, 44) == (1400,)
    assert data.startswith(error[48:])
    assert len(error) == min(1280, 48 + size)
    pseudo_header = error[8:40] + struct.pack("!IHBB", len(error) - 40, 0, 0, 58)
    assert is_sound(pseudo_header + error[40:])


def test_what_may_be_fragmented_gets_no_error() -> None:
    assert too_big(packet(*V4, 7, 1500), 1400, REPORTER4) is None


@pytest.mark.parametrize(("offset", "answered"), [(0x0000, True), (0x2000, True), (0x0001, False), (0x20B9, False)])
def test_only_the_first_fragment_is_answered(offset: int, answered: bool) -> None:
    data = bytearray(packet(*V4, 7, 1500))
    data[6:8] = struct.pack("!H", 0x4000 | offset)
    assert (too_big(bytes(data), 1400, REPORTER4) is not None) is answered


def test_without_an_address_of_the_family_nothing_is_said() -> None:
    assert too_big(dont_fragment(packet(*V4, 7, 1500)), 1400, None) is None
    assert too_big(packet(*V6, 7, 1500), 1400, None) is None


@pytest.mark.parametrize("ends", [V4, V6])
def test_the_host_itself_is_told_by_who_is_not_itself(ends: tuple[str, str]) -> None:
    data = dont_fragment(packet(*ends, 7, 1500)) if ends is V4 else packet(*ends, 7, 1500)
    where = inner.addresses(data)
    assert where is not None
    error = too_big(data, 1300, where.source)
    assert error is not None
    assert inner.addresses(error) == (where.destination, where.source)


def test_checksum_of_rfc_1071() -> None:
    assert inner.checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0xFFFF - 0xDDF2
    assert inner.checksum(b"\xab") == 0xFFFF - 0xAB00
    assert inner.checksum(b"\xff" * 65_535) == 0x00FF
