"""Whose turn it is, and what waits."""

from __future__ import annotations

from mpq_worker.contract import QueueLimits, Transport
from mpq_worker.handover import KEEP_BACK, MAX_KEPT, Duty, KeptBack
from mpq_worker.peer import Peer


class _Session:
    opened = -1


def peer() -> Peer:
    peer = Peer(_Session(), QueueLimits(), Transport(), 0.0)  # type: ignore[arg-type]  # all that is used of one
    peer.held = True
    return peer


def test_duties() -> None:
    assert [duty for duty in Duty if duty.reads] == [Duty.LEADING, Duty.MOVING]
    assert [duty for duty in Duty if duty.leaves] == [Duty.DRAINING, Duty.RELIEVED]


def test_packets_wait_in_order_until_their_peer_is_released() -> None:
    kept, one, two = KeptBack(), peer(), peer()
    assert kept.deadline() is None
    for number in range(3):
        assert not kept.add(one, bytes((number,)), 10.0 + number)
    kept.add(two, b"x", 10.1)
    assert kept.deadline() == 10.0 + KEEP_BACK
    assert kept.due(10.0 + KEEP_BACK) == [one]
    assert kept.release(one) == [b"\0", b"\1", b"\2"]
    assert (one.held, two.held) == (False, True)
    assert kept.release(one) == []
    assert kept.release(two) == [b"x"]
    assert kept.deadline() is None


def test_there_is_room_for_so_many() -> None:
    kept, one = KeptBack(), peer()
    assert [kept.add(one, b"", 0.0) for _ in range(MAX_KEPT)] == [False] * (MAX_KEPT - 1) + [True]
