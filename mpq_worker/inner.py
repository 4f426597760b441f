"""The little that mpq reads of the IP packets it carries (RFC 791, RFC 8200), and the one it writes. Pure."""

from __future__ import annotations

import struct
from typing import NamedTuple

ICMP_UNREACHABLE, ICMP_FRAGMENTATION_NEEDED = 3, 4
ICMP6_PACKET_TOO_BIG = 2
IPV6_MINIMUM_MTU = 1280


class Addresses(NamedTuple):
    """Packed addresses: 4 bytes each for IPv4, 16 for IPv6."""

    source: bytes
    destination: bytes


def addresses(packet: bytes) -> Addresses | None:
    """None if this is no IP packet, or one cut short: the length its header gives must fit."""
    if len(packet) < 20:
        return None
    version = packet[0] >> 4
    if version == 4:
        if int.from_bytes(packet[2:4], "big") != len(packet) or (packet[0] & 0x0F) < 5:
            return None
        return Addresses(packet[12:16], packet[16:20])
    if version == 6 and len(packet) >= 40:
        if int.from_bytes(packet[4:6], "big") + 40 != len(packet):
            return None
        return Addresses(packet[8:24], packet[24:40])
    return None


def addresses_of_head(packet: bytes) -> Addresses:
    """Of the first part of a packet that is known to be whole."""
    return Addresses(packet[12:16], packet[16:20]) if packet[0] >> 4 == 4 else Addresses(packet[8:24], packet[24:40])


def is_local(where: Addresses) -> bool:
    """Multicast and link-local: the host's own talk (router solicitations, MLD), which no tunnel carries."""
    first = where.destination[0]
    if len(where.destination) == 16:
        return first == 0xFF or (first == 0xFE and where.destination[1] & 0xC0 == 0x80)
    return first & 0xF0 == 0xE0 or where.destination[:2] == b"\xa9\xfe"


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    if len(data) % 2:
        data += b"\x00"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def too_big(packet: bytes, where: Addresses, mtu: int, reporter: bytes | None) -> bytes | None:
    """The ICMP error that tells the sender of `packet` to use `mtu` (RFC 792, RFC 1191; RFC 4443 section 3.2).

    `reporter` is our packed inner address of that family, the error's source; where that is the sender itself, which
    would not believe it (a martian), the destination's. None if nothing may be sent: no such address, an IPv4 packet
    that may be fragmented elsewhere, or a fragment other than the first.
    """
    if reporter is None:
        return None
    if reporter == where.source:
        reporter = where.destination
    if len(where.source) == 4:
        fragment = int.from_bytes(packet[6:8], "big")
        if not fragment & 0x4000 or fragment & 0x1FFF:
            return None
        quoted = packet[: (packet[0] & 0x0F) * 4 + 8]
        body = struct.pack("!BBHHH", ICMP_UNREACHABLE, ICMP_FRAGMENTATION_NEEDED, 0, 0, mtu) + quoted
        body = body[:2] + checksum(body).to_bytes(2, "big") + body[4:]
        header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 0, 0, 64, 1, 0) + reporter + where.source
        return header[:10] + checksum(header).to_bytes(2, "big") + header[12:] + body
    quoted = packet[: IPV6_MINIMUM_MTU - 48]
    body = struct.pack("!BBHI", ICMP6_PACKET_TOO_BIG, 0, 0, mtu) + quoted
    pseudo = reporter + where.source + struct.pack("!II", len(body), 58)
    body = body[:2] + checksum(pseudo + body).to_bytes(2, "big") + body[4:]
    return struct.pack("!IHBB", 6 << 28, len(body), 58, 64) + reporter + where.source + body
