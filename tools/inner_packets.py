"""IP packets with right checksums, one by one and as super-packets, made the slow way."""

from __future__ import annotations

import struct
from ipaddress import ip_address

from mpq_worker.inner import checksum

TCP, UDP = 6, 17
FIN, PSH, ACK, ECE, CWR = 0x01, 0x08, 0x10, 0x40, 0x80
GSO_TYPE = {(TCP, 4): 1, (TCP, 6): 4, (UDP, 4): 5, (UDP, 6): 5}


def ip(
    payload: bytes, protocol: int, source: str, destination: str, *, tos: int = 0, number: int = 0, ttl: int = 64
) -> bytes:
    """An IP packet; `number` is the IPv4 identification."""
    src, dst = ip_address(source).packed, ip_address(destination).packed
    if len(src) == 16:
        return struct.pack("!IHBB", 6 << 28 | tos << 20, len(payload), protocol, ttl) + src + dst + payload
    header = struct.pack("!BBHHHBBH", 0x45, tos, 20 + len(payload), number & 0xFFFF, 0x4000, ttl, protocol, 0)
    header += src + dst
    return header[:10] + struct.pack("!H", checksum(header)) + header[12:] + payload


def pseudo(source: str, destination: str, protocol: int, size: int) -> bytes:
    return ip_address(source).packed + ip_address(destination).packed + struct.pack("!II", size, protocol)


def tcp(
    payload: bytes,
    source: str,
    destination: str,
    *,
    ports: tuple[int, int] = (40000, 443),
    sequence: int = 0,
    flags: int = ACK,
    options: bytes = b"",
    window: int = 500,
    acknowledged: int = 77,
    tos: int = 0,
    number: int = 0,
) -> bytes:
    """A TCP segment in its IP packet."""
    offset = (20 + len(options)) << 2 & 0xF0
    head = struct.pack("!HHIIBBHHH", *ports, sequence & 0xFFFFFFFF, acknowledged, offset, flags, window, 0, 0)
    segment = head + options + payload
    total = checksum(pseudo(source, destination, TCP, len(segment)) + segment)
    segment = segment[:16] + struct.pack("!H", total) + segment[18:]
    return ip(segment, TCP, source, destination, tos=tos, number=number)


def udp(
    payload: bytes, source: str, destination: str, *, ports: tuple[int, int] = (5000, 53), number: int = 0
) -> bytes:
    """A UDP datagram in its IP packet."""
    head = struct.pack("!HHHH", *ports, 8 + len(payload), 0)
    total = checksum(pseudo(source, destination, UDP, 8 + len(payload)) + head + payload) or 0xFFFF
    datagram = head[:6] + struct.pack("!H", total) + payload
    return ip(datagram, UDP, source, destination, number=number)


def super_packet(packet: bytes, size: int) -> bytes:
    """A frame as the kernel gives it: virtio header, and a packet whose transport checksum is only begun."""
    version, protocol = (4, packet[9]) if packet[0] >> 4 == 4 else (6, packet[6])
    start = 20 if version == 4 else 40
    header = start + (8 if protocol == UDP else (packet[start + 12] >> 4) * 4)
    where = 6 if protocol == UDP else 16
    addresses = packet[12:20] if version == 4 else packet[8:40]
    begun = checksum(addresses + struct.pack("!II", len(packet) - start, protocol)) ^ 0xFFFF
    body = packet[: start + where] + struct.pack("!H", begun) + packet[start + where + 2 :]
    return struct.pack("=BBHHHH", 1, GSO_TYPE[protocol, version], header, size, start, where) + body
