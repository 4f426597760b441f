"""The pace at which a hub's sites are sent over to a new worker."""

from __future__ import annotations

import pytest

from mpq_worker.contract import DRAIN_LIMIT, QueueLimits, Transport
from mpq_worker.moves import MOVE_PAUSE, MOVE_TIME, PATIENCE, SILENCE, Moves
from mpq_worker.peer import Peer


class _Session:
    opened = -1


def peers(number: int) -> list[Peer]:
    return [Peer(_Session(), QueueLimits(), Transport(), 0.0) for _ in range(number)]  # type: ignore[arg-type]  # all that is used of one


def test_without_sites_it_is_over_at_once() -> None:
    assert Moves([], 100.0).over(100.0)


@pytest.mark.parametrize("number", [3, 1000])
def test_one_after_the_other_within_bounds(number: int) -> None:
    sites = peers(number)
    moves, now, told = Moves(sites, 100.0), 100.0, list[Peer]()
    while len(told) < number:
        told += moves.due(now)
        assert not moves.over(now)
        now = max(now + 1e-6, moves.deadline())
    assert told == sites
    assert now - 100.0 <= min(MOVE_TIME, number * MOVE_PAUSE) + PATIENCE
    for site in sites:
        moves.expected.discard(site)
    assert moves.over(now)


def test_who_comes_late_is_told_and_who_never_moves_is_left() -> None:
    (first, late) = peers(2)
    moves = Moves([first], 100.0)
    assert moves.due(100.0) == [first]
    moves.add(late)
    assert moves.due(101.0) == [late]
    moves.expected.discard(late)
    assert moves.due(100.0 + PATIENCE - 0.1) == []
    assert not moves.over(100.0 + PATIENCE - 0.1)
    assert moves.deadline() == 100.0 + PATIENCE < 100.0 + DRAIN_LIMIT
    assert moves.over(100.0 + PATIENCE)


def test_who_does_not_answer_is_not_waited_for() -> None:
    sites = peers(2)
    moves = Moves(sites, 100.0)
    for site in sites:
        site.note_outbound(100.0)
    assert moves.due(100.0) + moves.due(101.0) == sites
    assert 101.0 < moves.deadline() < 100.0 + SILENCE, "who has fallen silent is noticed"
    deadline = moves.deadline()
    assert not moves.over(102.0)
    assert moves.deadline() == deadline, "to ask changes nothing"
    moves.expected.discard(sites[0])
    assert not moves.over(100.0 + SILENCE - 0.1)
    assert moves.over(100.0 + SILENCE)
