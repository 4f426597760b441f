"""Whom a hub's worker resets, and how fast."""

from __future__ import annotations

import pytest

from mpq_worker.contract import MAX_RESET, LostPeer
from mpq_worker.hub import MAX_STATUS
from mpq_worker.quic.header import stateless_reset_token
from mpq_worker.resets import AT_ONCE, PAUSE, PER_SECOND, Resets

KEY = b"k" * 32


def lost(number: int) -> list[LostPeer]:
    return [LostPeer(("192.0.2.1", n), b"hub", n.to_bytes(8, "big")) for n in range(number)]


def test_all_the_lost_are_reset_once_each_where_they_were() -> None:
    resets = Resets(KEY, lost(3), 100.0)
    assert resets.deadline() == 100.0
    sent = resets.due(100.0)
    assert [addr for _, addr in sent] == [("192.0.2.1", n, b"hub") for n in range(3)]
    assert [data[-16:] for data, _ in sent] == [stateless_reset_token(KEY, n.to_bytes(8, "big")) for n in range(3)]
    assert {len(data) for data, _ in sent} == {MAX_RESET}
    assert (resets.deadline(), resets.due(101.0)) == (None, [])


@pytest.mark.parametrize("number", [20, MAX_STATUS])
def test_many_are_spread(number: int) -> None:
    """A few at once; 20 within 60 ms, as many as a report names within 1.16 s."""
    resets = Resets(KEY, lost(number), 100.0)
    assert len(resets.due(100.0)) == AT_ONCE
    now = resets.deadline()
    assert now == 100.0 + PAUSE
    later = [len(resets.due(now + n * PAUSE)) for n in range(number - AT_ONCE + 1)]
    assert (sum(later), max(later)) == (number - AT_ONCE, 2)
    assert resets.deadline() is None


def test_strangers_take_nothing_of_what_the_lost_are_due() -> None:
    resets = Resets(KEY, lost(AT_ONCE), 100.0)
    while resets.answer(bytes(8), 100, 100.0) is not None:
        pass
    assert len(resets.due(100.0)) == AT_ONCE


def test_answers_have_a_budget_and_are_never_longer_than_what_they_answer() -> None:
    resets = Resets(KEY, (), 100.0)
    cid = bytes(8)
    assert resets.answer(cid, 21, 100.0) is None  # an answer to an answer must not go on for ever
    answers = [resets.answer(cid, 100, 100.0) for _ in range(AT_ONCE + 5)]
    assert [answer is not None for answer in answers] == [True] * AT_ONCE + [False] * 5
    later = [resets.answer(cid, 100, 100.0 + n / 1000) for n in range(1000)]
    assert abs(sum(answer is not None for answer in later) - PER_SECOND) <= 1
    assert len(resets.answer(cid, 30, 101.0) or b"") == 29
