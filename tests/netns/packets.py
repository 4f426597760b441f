"""IP packets of every kind, byte by byte. Addresses are texts of one family; `checksum=None` computes it."""

from __future__ import annotations

import struct
from ipaddress import ip_address

from mpq_worker.inner import checksum as internet_checksum

ICMP, TCP, UDP, ICMP6, SCTP, NOTHING = 1, 6, 17, 58, 132, 59
FIN, SYN, RST, PSH, ACK, URG, ECE, CWR = (1 << bit for bit in range(8))
DONT_FRAGMENT, MORE_FRAGMENTS = 0x4000, 0x2000
TIMESTAMPS = bytes.fromhex("0101080a0102030405060708")


class Way(tuple[str, str]):
    """Source and destination address."""

    __slots__ = ()

    @property
    def six(self) -> bool:
        return ":" in self[0]

    @property
    def packed(self) -> bytes:
        return b"".join(ip_address(address).packed for address in self)


def ip(
    way: Way,
    protocol: int,
    payload: bytes = b"",
    *,
    tos: int = 0,
    ttl: int = 64,
    number: int = 0,
    fragment: int = DONT_FRAGMENT,
    options: bytes = b"",
) -> bytes:
    """An IP packet. For IPv6 `number` is the flow label; `fragment` and `options` are IPv4's."""
    if way.six:
        return struct.pack("!IHBB", 6 << 28 | tos << 20 | number, len(payload), protocol, ttl) + way.packed + payload
    length = 20 + len(options)
    head = struct.pack(
        "!BBHHHBBH", 0x40 | length // 4, tos, length + len(payload), number & 0xFFFF, fragment, ttl, protocol, 0
    )
    head += way.packed + options
    return head[:10] + struct.pack("!H", internet_checksum(head)) + head[12:] + payload


def transport(way: Way, protocol: int, segment: bytes, where: int, checksum: int | None) -> bytes:
    """A transport header and payload with the checksum at `where` filled in (RFC 9293 section 3.1, RFC 8200 8.1)."""
    if checksum is None:
        pseudo = way.packed + struct.pack("!II", len(segment), protocol)
        checksum = internet_checksum(pseudo + segment) or (0xFFFF if protocol == UDP else 0)
    return segment[:where] + struct.pack("!H", checksum) + segment[where + 2 :]


def udp(
    way: Way, payload: bytes, *, port: int = 4000, checksum: int | None = None, tos: int = 0, number: int = 0
) -> bytes:
    """A UDP datagram in its packet."""
    segment = struct.pack("!HHHH", port, port + 1, 8 + len(payload), 0) + payload
    return ip(way, UDP, transport(way, UDP, segment, 6, checksum), tos=tos, number=number)


def tcp(
    way: Way,
    payload: bytes,
    *,
    sequence: int = 1,
    flags: int = ACK,
    options: bytes = b"",
    port: int = 5000,
    acknowledged: int = 7,
    window: int = 512,
    urgent: int = 0,
    checksum: int | None = None,
    tos: int = 0,
    ttl: int = 64,
    number: int = 0,
    fragment: int = DONT_FRAGMENT,
) -> bytes:
    """A TCP segment in its packet; `options` of a multiple of four bytes."""
    words = (20 + len(options)) // 4
    head = struct.pack(
        "!HHIIBBHHH", port, port + 1, sequence & 0xFFFFFFFF, acknowledged, words << 4, flags, window, 0, urgent
    )
    segment = transport(way, TCP, head + options + payload, 16, checksum)
    return ip(way, TCP, segment, tos=tos, ttl=ttl, number=number, fragment=fragment)


def icmp_echo(way: Way, payload: bytes) -> bytes:
    """An echo request of the way's family."""
    if way.six:
        return ip(way, ICMP6, transport(way, ICMP6, struct.pack("!BBHHH", 128, 0, 0, 1, 2) + payload, 2, None))
    message = struct.pack("!BBHHH", 8, 0, 0, 1, 2) + payload
    return ip(way, ICMP, message[:2] + struct.pack("!H", internet_checksum(message)) + message[4:])


def extension(following: int, body: bytes) -> bytes:
    """An IPv6 extension header with `body` padded to a multiple of eight (RFC 8200 section 4)."""
    body += bytes(-(len(body) + 2) % 8)
    return struct.pack("!BB", following, (len(body) + 2) // 8 - 1) + body


def fragments(way: Way, protocol: int, payload: bytes, size: int) -> list[bytes]:
    """A payload in fragments of `size` bytes, a multiple of eight."""
    packets = []
    for at in range(0, len(payload), size):
        part, more = payload[at : at + size], at + size < len(payload)
        if way.six:
            head = struct.pack("!BBHI", protocol, 0, at | more, 0xABCD)
            packets.append(ip(way, 44, head + part))
        else:
            packets.append(ip(way, protocol, part, number=77, fragment=at // 8 | MORE_FRAGMENTS * more))
    return packets
