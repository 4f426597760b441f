"""So many per second and no more."""

from __future__ import annotations

from mpq_worker.budget import Budget


def test_a_burst_and_then_the_rate() -> None:
    budget = Budget(10, 3)
    assert [budget.take(100.0) for _ in range(4)] == [True, True, True, False]
    assert not budget.take(100.05)
    assert budget.take(100.11)
    assert not budget.take(100.11)
    assert [budget.take(200.0) for _ in range(4)] == [True, True, True, False]


def test_one_a_minute() -> None:
    budget = Budget(1 / 60, 1)
    assert [second for second in range(181) if budget.take(float(second))] == [0, 60, 120, 180]
