"""What mpq says inside a QUIC connection (ARCHITECTURE section 4). Pure.

A DATAGRAM frame's payload is one context byte and what follows:

    0  a plain IP packet
    1  probe request   sequence (8), sender's time in µs (8)
    2  probe reply     the same 16 bytes, returned

The control stream is client bidirectional stream 0; each message is a length (2 bytes, network order) and a
tagged MessagePack Struct: `Hello` from the site, then `Welcome` from the hub. A refusal is a CONNECTION_CLOSE
with an application error whose reason phrase says why. Fields are only ever added, with a default, so that two
neighbouring releases understand each other.
"""

from __future__ import annotations

import struct

import msgspec

from mpq_worker.errors import PeerFault, Refusal

ALPN = "mpq/1"
VERSION = 1
CONTROL_STREAM = 0

CONTEXT_IP = 0
CONTEXT_PROBE = 1
CONTEXT_PROBE_REPLY = 2

DATAGRAM_OVERHEAD = 31
"""UDP payload less inner packet: short header 1, connection ID 8, packet number 2, frame type 1,
length 2, context 1, AEAD tag 16."""

MAX_CONTROL_MESSAGE = 8192
MAX_REASON = 200
"""Characters of a peer's words that reach a log line or a reason phrase; a longer one would not fit its packet."""

HELLO_CONTEXT = b"mpq/1 site hello\x00"

_PROBE = struct.Struct("!BQQ")
_LENGTH = struct.Struct("!H")


class Hello(msgspec.Struct, frozen=True, tag="hello", omit_defaults=True):
    """The site's introduction. `certificate` is DER; `signature` is ECDSA over `hello_transcript`."""

    versions: tuple[int, ...]
    traffic_class: int
    inner: tuple[str, ...]
    certificate: bytes
    features: tuple[str, ...] = ()
    signature: bytes = b""


class Welcome(msgspec.Struct, frozen=True, tag="welcome", omit_defaults=True):
    version: int
    inner: tuple[str, ...]
    features: tuple[str, ...] = ()


Control = Hello | Welcome
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Control)


def encode_probe(context: int, seq: int, micros: int) -> bytes:
    """A probe request or reply; `micros` is the sender's clock and means nothing to the other end."""
    return _PROBE.pack(context, seq, micros)


def decode_probe(payload: bytes) -> tuple[int, int]:
    """`(seq, micros)` of a probe payload with its context byte. Raises PeerFault on any other length."""
    if len(payload) != _PROBE.size:
        raise PeerFault(Refusal.MALFORMED, f"probe of {len(payload)} bytes")
    _, seq, micros = _PROBE.unpack(payload)
    return seq, micros


def hello_transcript(hello: Hello, binding: bytes) -> bytes:
    """What the site signs: a context of our own, the connection's binding, the Hello without its signature."""
    return HELLO_CONTEXT + binding + _encoder.encode(msgspec.structs.replace(hello, signature=b""))


def encode_control(message: Control) -> bytes:
    """One length-prefixed control message."""
    body = _encoder.encode(message)
    return _LENGTH.pack(len(body)) + body


class ControlReader:
    """Cuts the control stream into messages; holds at most one message and its prefix."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Control]:
        """Messages completed by `data`. Raises PeerFault on anything that is not one."""
        self._buffer += data
        messages: list[Control] = []
        while len(self._buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer)
            if length > MAX_CONTROL_MESSAGE:
                raise PeerFault(Refusal.MALFORMED, f"control message of {length} bytes")
            end = _LENGTH.size + length
            if len(self._buffer) < end:
                break
            try:
                messages.append(_decoder.decode(bytes(self._buffer[_LENGTH.size : end])))
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                raise PeerFault(Refusal.MALFORMED, f"control message: {error}") from error
            del self._buffer[:end]
        return messages


def one_line(text: str) -> str:
    """`text` as it may be logged or sent as a reason: short, and printable, since a peer may have chosen it."""
    return "".join(c if c.isprintable() else "?" for c in text[:MAX_REASON])
