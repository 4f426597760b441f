"""What mpq says inside a QUIC connection (ARCHITECTURE section 4). Pure.

A DATAGRAM frame's payload is one context byte and what follows:

    0  a plain IP packet
    1  probe request   sequence (8), sender's time in µs (8)
    2  probe reply     the same 16 bytes, returned

The control stream is client bidirectional stream 0; each message is a length (2 bytes, network order) and a
tagged MessagePack Struct: `Hello` from the site, then `Welcome` from the hub. A refusal is a CONNECTION_CLOSE
with an application error whose reason phrase says why. Fields are only ever added, with a default; a message of
a type that we do not know is a later release's and skipped; so two neighbouring releases understand each other
(docs/decisions/versions.md).

A planned restart moves a tunnel from one connection to another (docs/decisions/restarts.md), between two that
both list the feature `MOVE`:

    site → hub  Take    on the new connection: what is for me comes by this one from now on
    hub → site  Move    on the old one: connect again, beside it
    both        Moved   on the old one, after the last packet that goes by it
"""

from __future__ import annotations

import struct
from typing import get_args

import msgspec

from mpq_worker.errors import PeerFault, Refusal

ALPN = "mpq/1"
VERSIONS = (1,)
"""Those that we speak, the newest first: this release's, and the last one's if that was another. A site offers its
own, the hub takes the newest that is common."""
CONTROL_STREAM = 0
MOVE = "move"
FEATURES = (MOVE,)
"""What both ends list, in `Claims` and `Welcome`."""

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
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class Claims(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a site says of itself. `certificate` is DER."""

    versions: tuple[int, ...]
    traffic_class: int
    inner: tuple[str, ...]
    certificate: bytes
    features: tuple[str, ...] = ()
    standby: bool = False  # leave what there is in its place until `Take`


class Hello(msgspec.Struct, frozen=True, tag="hello", omit_defaults=True):
    """The site's introduction: its encoded `Claims`, and ECDSA over `hello_transcript` of these very bytes, so that
    a hub can verify claims of which it knows only some."""

    claims: bytes
    signature: bytes


class Welcome(msgspec.Struct, frozen=True, tag="welcome", omit_defaults=True):
    version: int
    inner: tuple[str, ...]
    features: tuple[str, ...] = ()


class Take(msgspec.Struct, frozen=True, tag="take"):
    """From a site's new worker, which begins to read the TUN."""


class Move(msgspec.Struct, frozen=True, tag="move"):
    """From a hub's old worker, whose successor answers new connections already."""


class Moved(msgspec.Struct, frozen=True, tag="moved"):
    """The sender's last packet on this connection has left; what follows comes by the other one."""


class _Type(msgspec.Struct, frozen=True):
    """The tag of any control message, of whatever release."""

    type: str


Control = Hello | Welcome | Take | Move | Moved
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Control)
_claims_decoder = msgspec.msgpack.Decoder(Claims)
_type_decoder = msgspec.msgpack.Decoder(_Type)
_KNOWN = frozenset(str(kind.__struct_config__.tag) for kind in get_args(Control))


def encode_probe(context: int, seq: int, micros: int) -> bytes:
    """A probe request or reply; `micros` is the sender's clock and means nothing to the other end."""
    return _PROBE.pack(context, seq, micros)


def decode_probe(payload: bytes) -> tuple[int, int]:
    """`(seq, micros)` of a probe payload with its context byte. Raises PeerFault on any other length."""
    if len(payload) != _PROBE.size:
        raise PeerFault(Refusal.MALFORMED, f"probe of {len(payload)} bytes")
    _, seq, micros = _PROBE.unpack(payload)
    return seq, micros


def encode_claims(claims: Claims) -> bytes:
    """As they are signed and sent."""
    return _encoder.encode(claims)


def decode_claims(data: bytes) -> Claims:
    """Raises PeerFault on anything that is not such."""
    try:
        return _claims_decoder.decode(data)
    except _UNREADABLE as error:
        raise PeerFault(Refusal.MALFORMED, f"claims: {error}") from error


def hello_transcript(claims: bytes, binding: bytes) -> bytes:
    """What the site signs: a context of our own, the connection's binding, the encoded claims."""
    return HELLO_CONTEXT + binding + claims


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
            body = bytes(self._buffer[_LENGTH.size : end])
            del self._buffer[:end]
            try:
                if _type_decoder.decode(body).type in _KNOWN:
                    messages.append(_decoder.decode(body))
            except _UNREADABLE as error:
                raise PeerFault(Refusal.MALFORMED, f"control message: {error}") from error
        return messages


def one_line(text: str, most: int = MAX_REASON) -> str:
    """`text` as it may be logged or sent as a reason: short, and printable, since a peer may have chosen it."""
    return "".join(c if c.isprintable() else "?" for c in text[:most])
