"""1-RTT packets for the ends of `tools.paths`, made and read with aioquic's own protection."""

from __future__ import annotations

from tools.paths import End, context

INNER = ("10.200.11.5", "192.0.2.1")
HEADER = 9


def forge(end: End, payload: bytes, number: int, *, phase: int = 0, seed: int = 2, first: int = 0x43) -> bytes:
    """A packet for `end` with any frames in it."""
    header = bytes((first | phase << 2,)) + end.cid + number.to_bytes(4, "big")
    return context(end.suite, seed).encrypt_packet(header, payload, number)


def frames_of(end: End, data: bytes, seed: int) -> bytes:
    """What is in a packet that an end of this seed sealed."""
    header, payload, _, _ = context(end.suite, seed).decrypt_packet(data, HEADER, 0)
    assert header[0] & 0xDB == 0x43
    return payload
