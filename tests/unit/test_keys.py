"""Key updates: three keys, under reordering, in both directions, and never faster than RFC 9001 section 6 allows."""

from __future__ import annotations

import random

import pytest
from aioquic.quic.crypto import CryptoError
from aioquic.quic.packet import QuicProtocolVersion
from aioquic.tls import CipherSuite

from mpq_worker.quic.keys import KEPT_PTOS, KeyRing

CID = bytes(8)
PTO = 0.1


class End:
    """One end: its ring and its packet numbers."""

    def __init__(self, send: bytes, receive: bytes) -> None:
        self.ring = KeyRing()
        self.ring.pto = PTO
        for context, secret in ((self.ring.send, send), (self.ring.recv, receive)):
            context.setup(
                cipher_suite=CipherSuite.AES_128_GCM_SHA256, secret=secret, version=QuicProtocolVersion.VERSION_1
            )
        self.number = 0
        self.expected = 0
        self.acked = -1

    def seal(self, payload: bytes = b"hello") -> bytes:
        number, self.number = self.number, self.number + 1
        first = 0x41 | self.ring.key_phase << 2
        return self.ring.encrypt_packet(
            bytes((first,)) + CID + (number & 0xFFFF).to_bytes(2, "big"), payload.ljust(4), number
        )

    def open(self, packet: bytes, now: float = 0.0) -> int:
        """The packet number; raises CryptoError."""
        self.ring.now = now
        _, _, number = self.ring.decrypt_packet(packet, 1 + len(CID), self.expected)
        self.expected = max(self.expected, number + 1)
        return number

    def may_update(self, now: float) -> bool:
        self.ring.now = now
        return self.ring.may_update(self.acked)


@pytest.fixture
def ends() -> tuple[End, End]:
    one, other = b"1" * 32, b"2" * 32
    return End(one, other), End(other, one)


def test_packets_of_the_old_key_arrive_late(ends: tuple[End, End]) -> None:
    a, b = ends
    old = [a.seal() for _ in range(5)]
    a.ring.update_key()
    new = [a.seal() for _ in range(5)]
    for packet, number in ((old[0], 0), (new[2], 7), (old[3], 3), (new[0], 5), (old[4], 4), (new[4], 9), (old[1], 1)):
        assert b.open(packet) == number
    assert (b.ring.opened, b.ring.failed, b.ring.updates) == (7, 0, 1)
    assert b.ring.key_phase == a.ring.key_phase == 1


def test_the_answer_reorders_too(ends: tuple[End, End]) -> None:
    a, b = ends
    before = [b.seal() for _ in range(3)]
    a.ring.update_key()
    b.open(a.seal())
    after = [b.seal() for _ in range(3)]
    for packet in (after[1], before[2], after[0], before[0], after[2], before[1]):
        a.open(packet)
    assert (a.ring.opened, a.ring.failed, a.ring.updates) == (6, 0, 1)


def test_one_end_updates_before_its_peer_has_answered(ends: tuple[End, End]) -> None:
    """Until it does, the peer's packets come under the old key."""
    a, b = ends
    a.ring.update_key()
    for _ in range(3):
        a.open(b.seal())
    b.open(a.seal())
    a.open(b.seal())
    assert a.ring.failed == b.ring.failed == 0


def test_both_ends_update_at_once(ends: tuple[End, End]) -> None:
    a, b = ends
    late = a.seal(), b.seal()
    a.ring.update_key()
    b.ring.update_key()
    crossing = a.seal(), b.seal()
    b.open(crossing[0])
    a.open(crossing[1])
    b.open(late[0])
    a.open(late[1])
    assert (a.ring.updates, b.ring.updates) == (1, 1)
    assert a.ring.key_phase == b.ring.key_phase == 1
    b.open(a.seal())
    a.open(b.seal())


def test_no_update_before_the_last_one_is_acknowledged_and_old(ends: tuple[End, End]) -> None:
    a, b = ends
    assert not a.may_update(0.0)  # nothing sealed yet
    a.seal()
    assert not a.may_update(0.0)  # nothing acknowledged
    a.acked = 0
    assert a.may_update(0.0)
    a.ring.update_key()
    assert not a.may_update(9.0)  # nothing sent under it
    b.open(a.seal(), 10.0)
    assert not b.may_update(10.0)
    a.acked = 1
    assert not a.may_update(10.0)  # acknowledged, but under the old key
    a.open(b.seal(), 10.0)
    assert not a.may_update(10.0 + KEPT_PTOS * PTO - 0.001)
    assert a.may_update(10.0 + KEPT_PTOS * PTO)


def test_crossing_updates_do_not_count_as_an_answer(ends: tuple[End, End]) -> None:
    """The peer updated by itself and nothing of ours arrived: a second update would shut it out for good."""
    a, b = ends
    a.seal()
    a.acked = 0
    a.ring.update_key()
    b.ring.update_key()
    a.seal()  # lost
    a.open(b.seal(), 10.0)
    assert not a.may_update(20.0)
    a.acked = 1
    assert a.may_update(20.0)


def test_the_old_key_is_gone_after_three_ptos(ends: tuple[End, End]) -> None:
    a, b = ends
    old = [a.seal() for _ in range(2)]
    a.ring.update_key()
    b.open(a.seal(), 10.0)
    assert b.open(old[0], 10.0 + KEPT_PTOS * PTO) == 0
    with pytest.raises(CryptoError):
        b.open(old[1], 10.0 + KEPT_PTOS * PTO + 0.001)
    assert b.ring.failed == 1


def test_a_forged_phase_bit_changes_nothing(ends: tuple[End, End]) -> None:
    a, b = ends
    b.open(a.seal())
    for first in range(256):  # all that can be done to the protected byte, the phase bit among it
        packet = a.seal()
        if first != packet[0]:
            with pytest.raises(CryptoError):
                b.open(bytes((first,)) + packet[1:])
    header = bytes((0x41 | 4,)) + CID + a.number.to_bytes(2, "big")
    with pytest.raises(CryptoError):  # who knows the header key only, claims the next phase
        b.open(a.ring.send.encrypt_packet(header, bytes(20), a.number))
    assert (b.ring.opened, b.ring.updates, b.ring.recv.key_phase, b.ring.send.key_phase) == (1, 0, 0, 0)
    assert b.ring.failed == 256
    a.number += 1
    b.open(a.seal())


def test_a_replay_opens_but_is_not_news(ends: tuple[End, End]) -> None:
    a, b = ends
    packet = a.seal()
    b.open(packet)
    b.open(packet)
    assert (b.ring.largest, b.ring.first) == (0, 0)


def test_garbage_of_every_length_is_a_crypto_error(ends: tuple[End, End]) -> None:
    noise = random.Random(3)
    for length in range(9, 100):
        with pytest.raises(CryptoError):
            ends[1].open(b"\x41" + noise.randbytes(length - 1))


def test_without_keys_nothing_opens() -> None:
    with pytest.raises(CryptoError):
        KeyRing().decrypt_packet(bytes(60), 9, 0)


@pytest.mark.parametrize("seed", range(6))
def test_nothing_is_lost_whatever_the_order(seed: int) -> None:
    """Both ends update whenever they may, every packet is delayed by up to 2.5 PTOs: each one opens."""
    noise = random.Random(seed)
    ends = End(b"1" * 32, b"2" * 32), End(b"2" * 32, b"1" * 32)
    flying: list[tuple[float, int, bytes]] = []
    now = 0.0
    for _ in range(3000):
        now += noise.expovariate(500)
        for index in (0, 1):
            if ends[index].may_update(now) and noise.random() < 0.3:
                ends[index].ring.update_key()
        sender = noise.randrange(2)
        flying.append((now + noise.uniform(0, 2.5 * PTO), 1 - sender, ends[sender].seal()))
        flying.sort()
        while flying and flying[0][0] <= now:
            _, receiver, packet = flying.pop(0)
            ends[1 - receiver].acked = max(ends[1 - receiver].acked, ends[receiver].open(packet, now))
    assert [end.ring.failed for end in ends] == [0, 0]
    assert min(end.ring.updates for end in ends) >= 6
