"""Whom a hub's worker resets, and how fast."""

from __future__ import annotations

from mpq_worker.contract import MAX_RESET, LostPeer
from mpq_worker.quic.header import stateless_reset_token
from mpq_worker.resets import PAUSE, PER_SECOND, Resets

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


def test_many_are_spread() -> None:
    resets = Resets(KEY, lost(PER_SECOND + 100), 100.0)
    assert len(resets.due(100.0)) == PER_SECOND
    now = resets.deadline()
    assert now == 100.0 + PAUSE
    later = [len(resets.due(now + n * PAUSE)) for n in range(200)]
    assert (sum(later), max(later)) == (100, 2)


def test_answers_share_the_budget_and_are_never_longer_than_what_they_answer() -> None:
    resets = Resets(KEY, (), 100.0)
    cid = bytes(8)
    assert resets.answer(cid, 21, 100.0) is None  # an answer to an answer must not go on for ever
    answers = [resets.answer(cid, 100, 100.0) for _ in range(PER_SECOND + 5)]
    assert [answer is not None for answer in answers] == [True] * PER_SECOND + [False] * 5
    assert len(resets.answer(cid, 30, 101.0) or b"") == 29
