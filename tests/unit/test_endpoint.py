"""What one connection may take of the worker that all of its class share."""

from __future__ import annotations

import pytest
from aioquic.buffer import Buffer
from aioquic.quic.packet import QuicFrameType

from mpq_worker.endpoint import SPARE_TIMERS
from mpq_worker.errors import DropReason
from mpq_worker.peer import SLOW, SLOW_OF_STRANGERS
from tests.fuzz import ends
from tests.fuzz.ends import NOW, SITE_ADDRESS
from tests.sim.conftest import HUB_INNER, SITE_INNER
from tests.sim.packets import packet

MAX_DATA = b"\x10\x01"
"""A frame that is not the native loop's."""


def test_a_stranger_has_less_of_it() -> None:
    core, peer = ends.stranger()
    core.poll_transmit(NOW)
    for number in range(SLOW_OF_STRANGERS[1] + 50):
        core.handle_udp(ends.seal(peer.session, "hub", MAX_DATA, number), SITE_ADDRESS, NOW)
    assert core.report(NOW).drops == {DropReason.CONTROL: 50}


def test_what_python_has_to_look_at_has_a_budget_by_connection() -> None:
    core, peer = ends.hub_of_one()
    number = 0

    def hear(payload: bytes, times: int, now: float) -> None:
        nonlocal number
        for _ in range(times):
            core.handle_udp(ends.seal(peer.session, "hub", payload, number), SITE_ADDRESS, now)
            core.poll_transmit(now)
            number += 1

    def dropped() -> dict[str, int]:
        return core.report(NOW).drops

    hear(MAX_DATA, SLOW[1], NOW)
    assert dropped() == {}
    hear(MAX_DATA, 50, NOW)
    assert dropped() == {DropReason.CONTROL: 50}
    hear(b"\x30\x00" + packet(SITE_INNER, HUB_INNER, 7), 3, NOW)
    assert core.report(NOW).packets_in == 3
    hear(MAX_DATA, SLOW[0] + 20, NOW + 1.0)
    assert dropped() == {DropReason.CONTROL: 70}
    peer.held = True  # all its packets come this way now
    core.poll_transmit(NOW + 1.0)
    hear(MAX_DATA, 10, NOW + 1.0)
    assert dropped() == {DropReason.CONTROL: 70}


def test_what_the_loop_cannot_tell_of_is_settled_all_the_same() -> None:
    """A peer has us answer hundreds of times, and acknowledges all of it at once."""
    core, peer = ends.hub_of_one()
    assert peer.path is not None
    first = peer.path.next_number
    for number in range(300):
        now = NOW + number / 400
        core.handle_udp(
            ends.seal(peer.session, "hub", b"\x1a" + number.to_bytes(8, "big"), number), SITE_ADDRESS, now
        )
        core.poll_transmit(now)
    last = peer.path.next_number - 1
    assert last - first >= 299
    ack = Buffer(capacity=64)
    for field in (QuicFrameType.ACK, last, 0, 0, last - first):  # one range
        ack.push_uint_var(field)
    unsettled = peer.session._connection._loss.spaces[-1].sent_packets
    assert len(unsettled) >= 300
    core.handle_udp(ends.seal(peer.session, "hub", ack.data, 300), SITE_ADDRESS, NOW + 1.0)
    core.poll_transmit(NOW + 1.1)
    assert unsettled == {}


def test_timers_of_the_past_are_forgotten() -> None:
    """Each time that something is in flight, and then nothing, outdates a timer of 30 s."""
    core, peer = ends.hub_of_one()
    for number in range(500):
        core._wake_for(peer, NOW + 30 - number / 100)
    assert len(core._timers) <= 4 + SPARE_TIMERS
    assert core.poll_timeout() == pytest.approx(NOW + 30 - 4.99)
    core._remove(peer)
    assert core._timers == []
