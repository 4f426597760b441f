"""One connection: handshake with a key that lives elsewhere, resets, key updates, closing, and hostile frames."""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable
from typing import Any

import pytest
from aioquic.buffer import Buffer
from cryptography.hazmat.primitives.asymmetric import ec

from mpq_worker.contract import Transport
from mpq_worker.quic.connection import Connection
from mpq_worker.quic.header import parse_header, stateless_reset, stateless_reset_token
from mpq_worker.quic.session import (
    SIGNING_TIMEOUT,
    Closed,
    Connected,
    ControlData,
    Datagram,
    SignNeeded,
)
from mpq_worker.quic.signer import RemoteKey, SignatureRefused
from mpq_worker.wire import MAX_REASON
from tests.unit.sessions import HUB, RESET_KEY, SITE, SLOT, Pair, forge

STREAM, CRYPTO, NEW_CONNECTION_ID = 0x0E, 0x06, 0x18


@pytest.fixture
def pair() -> Pair:
    pair = Pair()
    pair.connect()
    return pair


def closed(events: list[Any]) -> list[Closed]:
    return [event for event in events if isinstance(event, Closed)]


def stream_frame(offset: int, data: bytes, stream: int = 0) -> bytes:
    buffer = Buffer(capacity=1500)
    for number in (STREAM, stream, offset, len(data)):
        buffer.push_uint_var(number)
    return buffer.data + data


def crypto_frame(offset: int, data: bytes) -> bytes:
    buffer = Buffer(capacity=1500)
    for number in (CRYPTO, offset, len(data)):
        buffer.push_uint_var(number)
    return buffer.data + data


# ---------------------------------------------------------------- handshake


def test_both_ends_have_the_same_binding_and_no_other_pair_has(pair: Pair) -> None:
    (ours,) = [e.binding for e in pair.events[pair.site] if isinstance(e, Connected)]
    (theirs,) = [e.binding for e in pair.events[pair.hub] if isinstance(e, Connected)]
    assert ours == theirs
    assert len(ours) == 32
    other = Pair()
    other.connect()
    assert ours not in [e.binding for e in other.events[other.site] if isinstance(e, Connected)]


def test_every_connection_id_of_the_hub_leads_to_its_slot(pair: Pair) -> None:
    assert len(pair.hub.cids) == 8 + 1  # and the one that the site chose
    assert {cid[0] for cid in (*pair.hub.cids, pair.initial.destination_cid)} == {SLOT}
    assert {len(cid) for cid in pair.hub.cids} == {8}


def test_datagrams_and_control_data_arrive(pair: Pair) -> None:
    pair.site.send_datagram(b"\x00packet")
    pair.site.send_control(b"control")
    pair.hub.send_datagram(b"\x00answer")
    pair.exchange(0.1)
    assert Datagram(b"\x00packet") in pair.events[pair.hub]
    assert ControlData(b"control") in pair.events[pair.hub]
    assert Datagram(b"\x00answer") in pair.events[pair.site]


def test_wrong_name_of_the_hub() -> None:
    pair = Pair(hub_name="another.test")
    pair.exchange(1.0)
    assert not pair.site.connected
    (event,) = closed(pair.events[pair.site])
    assert "another.test" in event.reason


def test_no_signature_at_all_ends_the_handshake() -> None:
    pair = Pair()
    pair.signs = False
    pair.exchange(SIGNING_TIMEOUT + 0.1)
    assert [type(event) for event in pair.events[pair.hub]] == [SignNeeded, Closed]
    assert not pair.site.connected


def test_a_refused_signature_ends_the_handshake_and_held_packets_start_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pair = Pair()
    pair.signs = False
    pair.exchange()
    for data, _ in pair.first_flight * 40:
        pair.hub.handle_datagram(data, SITE, pair.now)
    pair.hub.handle_signature(b"", pair.now)
    pair.exchange(0.1)
    assert [type(event) for event in pair.events[pair.hub]] == [SignNeeded, Closed]
    assert pair.hub.poll_timeout() is None
    assert pair.hub.poll_transmit(pair.now) == []
    with monkeypatch.context() as patch:
        patch.setattr(pair.hub._connection, "receive_datagram", lambda *args: pytest.fail("it is over"))
        pair.hub.handle_datagram(pair.first_flight[0][0], SITE, pair.now)


@pytest.mark.parametrize("delay", [0.5, 2.0])
def test_a_late_signature_is_in_time(delay: float) -> None:
    pair = Pair()
    pair.signs = False
    pair.exchange(delay)
    (request,) = pair.events[pair.hub]
    assert isinstance(request, SignNeeded)
    assert not pair.hub.poll_transmit(pair.now)
    pair.hub.handle_signature(pair.sign(request.data), pair.now)
    pair.connect()
    pair.hub.handle_signature(b"a second answer", pair.now)
    assert not pair.hub.closed


def test_a_signature_of_something_else_convinces_no_site() -> None:
    pair = Pair()
    pair.signs = False
    pair.exchange()
    pair.hub.handle_signature(pair.sign(b"something else"), pair.now)
    pair.exchange(0.5)
    assert not pair.site.connected
    assert closed(pair.events[pair.site])


def test_closing_while_a_signature_is_awaited_leaves_nothing_behind() -> None:
    """A greenlet that nobody ever resumes is out of the garbage collector's sight."""

    def alive() -> int:
        gc.collect()
        return sum(isinstance(thing, Connection) and not thing._is_client for thing in gc.get_objects())

    before = alive()
    pair = Pair()
    pair.signs = False
    pair.exchange()
    assert alive() == before + 1
    pair.hub.close("no Hello")
    assert [event.reason for event in closed(list(iter(pair.hub.poll_event, None)))] == ["no Hello"]
    del pair
    assert alive() == before


def test_remote_key_does_nothing_but_ask() -> None:
    key = RemoteKey()
    assert isinstance(key.curve, ec.SECP256R1)
    assert key.key_size == 256
    for call in (key.public_key, key.private_numbers, key.__copy__):
        with pytest.raises(NotImplementedError):
            call()
    from cryptography.hazmat.primitives import hashes

    with pytest.raises(SignatureRefused):
        key.sign(b"data", ec.ECDSA(hashes.SHA256()))


# ---------------------------------------------------------------- stateless reset


def reset_for(pair: Pair, key: bytes = RESET_KEY) -> bytes:
    cid = pair.site._connection._peer_cid.cid
    answer = stateless_reset(key, cid, 1200)
    assert answer is not None
    return answer


def test_the_right_token_ends_the_connection(pair: Pair) -> None:
    pair.site.handle_datagram(reset_for(pair), HUB, pair.now)
    assert pair.site.closed


@pytest.mark.parametrize("bit", [0, 63, 127])
def test_a_wrong_token_does_not(pair: Pair, bit: int) -> None:
    answer = bytearray(reset_for(pair))
    answer[-1 - bit // 8] ^= 1 << bit % 8
    pair.site.handle_datagram(bytes(answer), HUB, pair.now)
    pair.site.handle_datagram(reset_for(pair, b"x" * 32), HUB, pair.now)
    pair.site.handle_datagram(reset_for(pair)[-20:], HUB, pair.now)
    assert not pair.site.closed


def test_only_the_token_of_the_connection_id_in_use(pair: Pair) -> None:
    """Not of one that was never used, nor of one that was retired (RFC 9000 section 10.3.1)."""
    old = reset_for(pair)
    unused = pair.site._connection._peer_cid_available[-1].cid
    answer = stateless_reset(RESET_KEY, unused, 1200)
    assert answer is not None
    pair.site.handle_datagram(answer, HUB, pair.now)
    pair.site.migrate()
    pair.exchange(0.1)
    pair.site.handle_datagram(old, HUB, pair.now)
    assert not pair.site.closed
    pair.site.handle_datagram(reset_for(pair), HUB, pair.now)
    assert pair.site.closed


def test_the_token_follows_many_migrations(pair: Pair) -> None:
    for _ in range(20):
        pair.site.handle_datagram(b"\x40" + bytes(60), HUB, pair.now)  # looked at for a token, and is none
        pair.site.migrate()
        pair.exchange(0.1)
    pair.site.handle_datagram(reset_for(pair), HUB, pair.now)
    assert pair.site.closed


def test_a_site_without_a_token_cannot_be_reset_by_zeros(pair: Pair) -> None:
    pair.hub.handle_datagram(b"\x40" + bytes(40), SITE, pair.now)
    assert not pair.hub.closed


@pytest.mark.parametrize("received", range(60))
def test_a_reset_is_shorter_than_its_cause(received: int) -> None:
    answer = stateless_reset(RESET_KEY, bytes(8), received)
    if received < 22:
        assert answer is None
    else:
        assert answer is not None
        assert 21 <= len(answer) < received
        assert len(answer) <= 42
        assert answer[0] & 0xC0 == 0x40
        assert answer.endswith(stateless_reset_token(RESET_KEY, bytes(8)))


# ---------------------------------------------------------------- keys


def test_key_updates_on_both_sides() -> None:
    pair = Pair(transport=Transport(key_update_packets=20))
    pair.connect()
    for number in range(400):
        pair.site.send_datagram(number.to_bytes(2, "big"))
        pair.hub.send_datagram(number.to_bytes(2, "big"))
        pair.exchange(0.02)
    for session in (pair.site, pair.hub):
        assert session.counters()["key_updates"] > 8
        assert session._connection.ring.failed == 0
        received = [event.payload for event in pair.events[session] if isinstance(event, Datagram)]
        assert received == [number.to_bytes(2, "big") for number in range(400)]


def test_the_old_key_is_kept_for_three_ptos_of_this_path(pair: Pair) -> None:
    """Also at the end that did not begin the update."""
    pair.exchange(0.1)
    for session in (pair.site, pair.hub):
        session.poll_transmit(pair.now)
        assert session._connection.ring.pto == session._connection._loss.get_probe_timeout()


def test_no_update_before_the_handshake_is_confirmed() -> None:
    pair = Pair(transport=Transport(key_update_packets=1))
    pair.exchange()
    assert pair.site.connected
    pair.exchange(1.0)
    assert not closed(pair.events[pair.site])
    assert not closed(pair.events[pair.hub])


# ---------------------------------------------------------------- liveness


def test_a_replayed_packet_is_no_sign_of_life(pair: Pair) -> None:
    packet = forge(pair.site, b"\x01")
    pair.hub.handle_datagram(packet, SITE, pair.now)
    before = pair.hub.opened
    pair.hub.handle_datagram(packet, SITE, pair.now + 1)
    assert pair.hub.opened == before
    pair.hub.handle_datagram(forge(pair.site, b"\x01"), SITE, pair.now + 1)
    assert pair.hub.opened > before


# ---------------------------------------------------------------- close


@pytest.mark.parametrize("reason", ["identity: nobody we know", ""])
def test_the_reason_arrives(pair: Pair, reason: str) -> None:
    pair.hub.close(reason)
    pair.exchange(0.1)
    (event,) = closed(pair.events[pair.site])
    assert event.refused is bool(reason)
    assert event.reason == (reason or "the other end stopped")
    assert [type(e) for e in pair.events[pair.hub]][-1] is Closed
    assert pair.hub.poll_timeout() is None


@pytest.mark.parametrize("reason", ["x" * 100_000, "é" * 5000, "line\nbreak \x1b[31m", "\u2028" * 300])
def test_any_reason_can_be_sent(pair: Pair, reason: str) -> None:
    """It may quote what a peer wrote, and must fit into one packet."""
    pair.hub.close(reason)
    pair.exchange(0.1)
    (event,) = closed(pair.events[pair.site])
    assert event.refused
    assert event.reason.isprintable()
    assert 0 < len(event.reason) <= MAX_REASON


def test_a_hostile_reason_is_printable_when_it_is_read(pair: Pair) -> None:
    text = b"bye\n\x1b[2Jsecond line"
    pair.hub.handle_datagram(forge(pair.site, b"\x1d\x41\x00" + bytes((len(text),)) + text), SITE, pair.now)
    (event,) = closed(list(iter(pair.hub.poll_event, None)))
    assert event.reason == "bye??[2Jsecond line"


# ---------------------------------------------------------------- hostile frames


@pytest.mark.parametrize("frame", [stream_frame, crypto_frame])
def test_a_stream_in_crumbs_costs_little(pair: Pair, frame: Callable[[int, bytes], bytes]) -> None:
    """Every other byte, so that nothing can be delivered: the library would search ever longer lists."""
    offset, start = 1000, time.process_time()
    for _ in range(200):
        payload = b""
        while len(payload) < 1300:
            payload += frame(offset, b"x")
            offset += 2
        pair.hub.handle_datagram(forge(pair.site, payload), SITE, pair.now)
    assert time.process_time() - start < 0.5
    pair.exchange(0.1)
    assert closed(pair.events[pair.hub])


def test_what_is_held_of_a_stream_is_bounded(pair: Pair) -> None:
    """Data without its beginning, as fast as credit comes: the library would extend it without end."""
    connection = pair.hub._connection
    held, offset = 0, 1200
    for _ in range(200):
        pair.hub.handle_datagram(forge(pair.site, stream_frame(offset, bytes(1200))), SITE, pair.now)
        held = max([held, *(len(stream.receiver._buffer) for stream in connection._streams.values())])
        offset += 1200
        pair.exchange(0.01)
    assert 0 < held <= 65_536
    assert closed(pair.events[pair.hub])


@pytest.mark.parametrize("stream", [1, 2, 3, 4, 8])
def test_there_is_one_stream(pair: Pair, stream: int) -> None:
    pair.hub.handle_datagram(forge(pair.site, stream_frame(0, b"x", stream)), SITE, pair.now)
    pair.exchange(0.1)
    assert closed(pair.events[pair.hub])
    assert not [event for event in pair.events[pair.hub] if isinstance(event, ControlData)]


def test_long_connection_ids_make_no_spinning_timer(pair: Pair) -> None:
    """A peer may change to IDs under which a full-sized packet no longer fits: its loss alone."""
    buffer = Buffer(capacity=100)
    for number in (NEW_CONNECTION_ID, 9, 9):
        buffer.push_uint_var(number)
    frame = buffer.data + b"\x14" + b"z" * 20 + bytes(16)
    pair.hub.handle_datagram(forge(pair.site, frame), SITE, pair.now)
    pair.hub.send_datagram(bytes(1401))
    wakes = 0
    for _ in range(100):
        pair.hub.poll_transmit(pair.now)
        deadline = pair.hub.poll_timeout()
        if deadline is None or deadline > pair.now + 1.0:
            break
        wakes += 1
        pair.now = max(deadline, pair.now) + 1e-6
        pair.hub.handle_timer(pair.now)
    assert wakes < 30


def test_headers() -> None:
    cid = bytes(range(8))
    short = parse_header(b"\x40" + cid + b"rest")
    assert short is not None
    assert (short.destination_cid, short.is_long) == (cid, False)
    long = b"\xc0\x00\x00\x00\x01\x08" + cid + b"\x08" + cid + b"\x00\x44\x9e"
    padded = long + bytes(0x49E)
    header = parse_header(padded)
    assert header is not None
    assert (header.destination_cid, header.is_long, header.is_initial) == (cid, True, len(padded) >= 1200)
    for bad in (
        b"",
        b"\x40" + cid[:-1],
        b"\x00" + cid + bytes(30),
        padded[:4] + b"\x02" + padded[5:],
        padded[:4] + b"\x00" + padded[5:],
        long,
        *(padded[:length] for length in range(25)),
    ):
        assert parse_header(bad) is None


def test_noise_never_raises(pair: Pair) -> None:
    noise = random.Random(2)
    cid = pair.hub.cids[0]
    for length in range(1500):
        pair.hub.handle_datagram((b"\x41" + cid + noise.randbytes(length))[: length + 1], SITE, pair.now)
    pair.exchange(0.1)
    assert not closed(pair.events[pair.hub])
