"""Packets for the simulation: IP, and the first ones of QUIC."""

from __future__ import annotations

import struct
from ipaddress import ip_address

from aioquic.quic.crypto import CryptoPair

from mpq_worker.quic.header import MIN_INITIAL


def packet(source: str, destination: str, number: int = 0, size: int = 100) -> bytes:
    """A UDP-like packet of `size` bytes in all that carries `number`; IPv4 or IPv6 by its addresses."""
    src, dst = ip_address(source).packed, ip_address(destination).packed
    if len(src) == 4:
        header = struct.pack("!BBHHHBBH", 0x45, 0, size, number & 0xFFFF, 0, 64, 17, 0) + src + dst
    else:
        header = struct.pack("!IHBB", 6 << 28, size - 40, 17, 64) + src + dst
    return header + struct.pack("!Q", number) + bytes(size - len(header) - 8)


def number_of(data: bytes) -> int:
    """The number in a packet made by `packet`."""
    start = 20 if data[0] >> 4 == 4 else 40
    return int(struct.unpack_from("!Q", data, start)[0])


def initial(keys: CryptoPair, to: bytes, source: bytes, payload: bytes, number: int) -> bytes:
    """An Initial packet of full size with any frames in it (RFC 9001 section 5.2)."""
    payload = payload.ljust(MIN_INITIAL - 44, b"\x00")
    length = (len(payload) + 2 + 16 | 0x4000).to_bytes(2, "big")
    cids = bytes((len(to),)) + to + bytes((len(source),)) + source
    return keys.encrypt_packet(
        b"\xc1\x00\x00\x00\x01" + cids + b"\x00" + length + number.to_bytes(2, "big"), payload, number
    )
