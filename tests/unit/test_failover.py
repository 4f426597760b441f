"""Who carries nothing: `failover`."""

from __future__ import annotations

from mpq_supervisor.failover import Failover


def test_down_after_a_while_and_back_after_a_longer_one() -> None:
    failover = Failover(1.0, 10.0)
    said = [failover.step({"cr1": now >= 5, "cr2": True}, now) for now in range(20)]
    assert said[0] == frozenset(), "not UP yet is no news"
    assert {now for now, down in enumerate(said) if down == {"cr1"}} == set(range(1, 15))


def test_a_restart_moves_nothing() -> None:
    failover = Failover(1.0, 10.0)
    up = [True, True, False, True, False, True]
    assert not any(failover.step({"cr1": now}, 0.75 * n) for n, now in enumerate(up))


def test_one_that_flaps_stays_down() -> None:
    failover = Failover(1.0, 10.0)
    for now in range(3):
        failover.step({"cr1": False}, now)
    assert all(failover.step({"cr1": now % 9 != 0}, now) == {"cr1"} for now in range(3, 60))


def test_one_that_was_taken_out_is_forgotten() -> None:
    failover = Failover(0.0, 10.0)
    assert failover.step({"cr1": False}, 0) == {"cr1"}
    assert failover.step({}, 1) == frozenset()
    assert failover.step({"cr1": True}, 2) == frozenset()
