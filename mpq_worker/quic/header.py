"""What can be read of a packet, and answered to it, without its connection (RFC 8999; RFC 9000 section 10.3)."""

from __future__ import annotations

import hmac
import os
from typing import NamedTuple

from aioquic.buffer import Buffer, BufferReadError
from aioquic.quic.packet import QuicPacketType, QuicProtocolVersion, pull_quic_header

from mpq_worker.contract import MAX_RESET

CID_LENGTH = 8
MIN_INITIAL = 1200


class Header(NamedTuple):
    """The invariant part of a packet's header (RFC 8999); of an Initial also its token (RFC 9000 section 17.2.2)."""

    destination_cid: bytes
    is_long: bool
    is_initial: bool
    source_cid: bytes = b""
    token: bytes = b""


def parse_header(data: bytes) -> Header | None:
    """None if `data` is no QUIC v1 packet with connection IDs of our length."""
    if len(data) < 1 + CID_LENGTH:
        return None
    if not data[0] & 0x80:
        return Header(data[1 : 1 + CID_LENGTH], False, False) if data[0] & 0x40 else None
    try:
        header = pull_quic_header(Buffer(data=data), host_cid_length=CID_LENGTH)
    except (ValueError, BufferReadError):
        return None
    if header.version != QuicProtocolVersion.VERSION_1 or len(header.destination_cid) < CID_LENGTH:
        return None
    initial = header.packet_type == QuicPacketType.INITIAL and len(data) >= MIN_INITIAL
    return Header(header.destination_cid, True, initial, header.source_cid, header.token)


def stateless_reset(key: bytes, cid: bytes, received: int) -> bytes | None:
    """The answer to `received` bytes for a connection that is not there (RFC 9000 section 10.3), or None if that
    packet is too short to be answered without the danger of a loop."""
    size = min(received - 1, MAX_RESET)
    if size < 21:
        return None
    noise = bytearray(os.urandom(size - 16))
    noise[0] = noise[0] & 0x3F | 0x40
    return bytes(noise) + stateless_reset_token(key, cid)


def stateless_reset_token(key: bytes, cid: bytes) -> bytes:
    """The 16-byte token of a connection ID, from a key that outlives workers (RFC 9000 section 10.3.2)."""
    return hmac.digest(key, cid, "sha256")[:16]
