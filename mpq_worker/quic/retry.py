"""Proof of a return path before a connection costs anything: Retry (RFC 9000 sections 8.1.2 and 17.2.5). Pure.

    Initial ─▶ Retry: our connection ID, a token ─▶ Initial to that ID, with the token ─▶ `redeem`

Nothing is kept for a Retry that was sent. The token is not encrypted, for it holds nothing that its receiver does not
know; it is authenticated, together with all that it must fit:

    time issued in µs (8)   connection ID that the first Initial went to (8 to 20)   MAC (16)

A token is good once, which `Admission` sees to, for `LIFETIME`, from one address and port, to one connection ID.
"""

from __future__ import annotations

import hmac
import os
import struct

from aioquic.quic.packet import QuicProtocolVersion, encode_quic_retry

from mpq_worker.quic.header import CID_LENGTH, Header

LIFETIME = 10.0
"""Seconds. A client sends the token at once, and again until it is answered (RFC 9000 section 8.1.3)."""
_CONTEXT = b"mpq/1 retry\x00"
_MAC = 16
_TIME = struct.Struct("!Q")
_LARGEST = _TIME.size + 20


class RetryTokens:
    """`key` is shared by all workers of a port; `now` is the host's monotonic clock, the same for all of them."""

    def __init__(self, key: bytes, slot: int) -> None:
        self._key = key
        self._slot = slot

    def retry(self, initial: Header, host: str, port: int, now: float) -> bytes:
        """The Retry packet that answers an Initial."""
        cid = bytes((self._slot,)) + os.urandom(CID_LENGTH - 1)
        body = _TIME.pack(int(now * 1e6)) + initial.destination_cid
        return encode_quic_retry(
            version=QuicProtocolVersion.VERSION_1,
            source_cid=cid,
            destination_cid=initial.source_cid,
            original_destination_cid=initial.destination_cid,
            retry_token=body + self._mac(body, cid, host, port),
        )

    def redeem(self, initial: Header, host: str, port: int, now: float) -> bytes | None:
        """The connection ID of the first Initial, if the token in this one is good; None if not."""
        body, mac = initial.token[:-_MAC], initial.token[-_MAC:]
        if len(body) > _LARGEST:
            return None
        if not hmac.compare_digest(mac, self._mac(body, initial.destination_cid, host, port)):
            return None
        issued = _TIME.unpack_from(body)[0] / 1e6
        return body[_TIME.size :] if 0 <= now - issued <= LIFETIME else None

    def _mac(self, body: bytes, cid: bytes, host: str, port: int) -> bytes:
        bound = _CONTEXT + bytes((len(cid),)) + cid + bytes((len(body),)) + body + f"{host} {port}".encode()
        return hmac.digest(self._key, bound, "sha256")[:_MAC]
