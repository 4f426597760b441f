"""1-RTT packet protection that survives key updates (RFC 9001 section 6).

aioquic rolls both directions at once and forgets the old receive key at once, so that a round trip of inbound
packets is lost per update, and nothing keeps it from starting a second update before the first is acknowledged.
`KeyRing` takes the place of its `CryptoPair` for the 1-RTT space: send and receive phases move separately, the
previous receive key lives on for three PTOs, and `may_update` says when the next update is allowed. The native loop
has the same keys, and whichever of the two first opens a packet under the next one takes the other along.
"""

from __future__ import annotations

from aioquic._crypto import AEAD
from aioquic.quic.crypto import (
    CryptoContext,
    CryptoError,
    CryptoPair,
    KeyUnavailableError,
    apply_key_phase,
    derive_key_iv_hp,
    next_key_phase,
)
from aioquic.quic.packet import decode_packet_number

from mpq_worker._datapath import Path

KEPT_PTOS = 3
KEY_PHASE_BIT = 0x04


def key_of(context: CryptoContext) -> tuple[bytes, bytes]:
    """Packet key and initialisation vector."""
    assert context.cipher_suite is not None
    assert context.secret is not None
    assert context.version is not None
    return derive_key_iv_hp(cipher_suite=context.cipher_suite, secret=context.secret, version=context.version)[:2]


class KeyRing(CryptoPair):
    """`now` and `pto` (seconds) are set by the session before packets are opened.

    `opened` and `failed` count packets since the connection began, `first` and `largest` are packet numbers received;
    all without the native loop's.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.pto = 0.1
        self.opened = 0
        self.failed = 0
        self._sealed = 0
        self.updates = 0
        self.first: int | None = None
        self.largest = -1
        self._next: CryptoContext | None = None
        self._previous: AEAD | None = None
        self._previous_until = 0.0
        self.phase_start = 0
        self._send_start: int | None = None
        self._quiet_until = 0.0
        self._native: Path | None = None

    @property
    def key_phase(self) -> int:
        """The bit that goes into the short header: the phase of what we send."""
        return self.send.key_phase

    def encrypt_packet(self, plain_header: bytes, plain_payload: bytes, packet_number: int) -> bytes:
        if self._send_start is None:
            self._send_start = packet_number
        self._sealed += 1
        return self.send.encrypt_packet(plain_header, plain_payload, packet_number)

    def decrypt_packet(
        self, packet: bytes, encrypted_offset: int, expected_packet_number: int
    ) -> tuple[bytes, bytes, int]:
        """As CryptoPair's, with three candidate keys. Raises CryptoError when the right one does not open it."""
        if self.recv.hp is None:
            raise KeyUnavailableError("Decryption key is not available")
        try:
            header, truncated = self.recv.hp.remove(packet, encrypted_offset)
            number = decode_packet_number(truncated, 8 * ((header[0] & 3) + 1), expected_packet_number)
            key, is_next = self._choose(bool(header[0] & KEY_PHASE_BIT), number)
            payload = key.decrypt(packet[len(header) :], header, number)
        except CryptoError:
            self.failed += 1
            raise
        if is_next:
            self._advance_receive(number)
        self.opened += 1
        self.largest = max(self.largest, number)
        if self.first is None:
            self.first = number
        return header, payload, number

    def _choose(self, phase: bool, number: int) -> tuple[AEAD, bool]:
        """The key for a packet, and whether it is the next phase's (RFC 9001 section 6.5)."""
        assert self.recv.aead is not None
        if phase == self.recv.key_phase:
            return self.recv.aead, False
        if number < self.phase_start:
            if self._previous is None or self.now > self._previous_until:
                raise CryptoError("the previous key is gone")
            return self._previous, False
        if self._next is None:
            self._next = next_key_phase(self.recv)
        assert self._next.aead is not None
        return self._next.aead, True

    def _advance_receive(self, first_number: int) -> None:
        """The peer sends under the next key: keep the old one a while, and answer in kind."""
        if self._next is None:
            self._next = next_key_phase(self.recv)
        self._previous = self.recv.aead
        self._previous_until = self._quiet_until = self.now + KEPT_PTOS * self.pto
        apply_key_phase(self.recv, self._next, trigger="remote_update")
        self._next = None
        self.phase_start = first_number
        if self._native is not None:
            if self._native.receive_phase != self.recv.key_phase:
                self._native.advance_phase(first_number, self.now)
            self._prepare_native(self._native)
        if self.send.key_phase != self.recv.key_phase:
            self.update_key()

    def may_update(self, largest_acked: int) -> bool:
        """True if the peer has acknowledged a packet under the current send key and answered with its own next
        key, and that is three PTOs old (RFC 9001 sections 6.1 and 6.5)."""
        if self._send_start is None or largest_acked < self._send_start:
            return False
        return self.send.key_phase == self.recv.key_phase and self.now >= self._quiet_until

    def update_key(self) -> None:
        """Send under the next key from now on; the receive key follows when the peer's does."""
        apply_key_phase(self.send, next_key_phase(self.send), trigger="local_update")
        self._sealed = 0
        self._send_start = None
        self.updates += 1
        if self._native is not None:
            self._send_start = self._native.next_number
            self._native.set_send_key(*key_of(self.send), bool(self.send.key_phase))

    @property
    def sealed(self) -> int:
        """Packets under the current send key."""
        return self._sealed + (self._native.sealed if self._native is not None else 0)

    def use_native(self, path: Path) -> None:
        """`path` has our keys but the next one; from now on they change together."""
        self._native = path
        self._prepare_native(path)

    def follow_native(self) -> None:
        """The native loop opened a packet under the next key."""
        if self._native is not None and self._native.receive_phase != self.recv.key_phase:
            self._advance_receive(self._native.phase_start)

    def _prepare_native(self, path: Path) -> None:
        self._next = next_key_phase(self.recv)
        path.set_next_key(*key_of(self._next))
