"""The bound on log lines."""

from __future__ import annotations

from mpq_supervisor.throttle import BURST, PER_SECOND, Throttle


def test_burst_then_rate_and_the_rest_is_counted() -> None:
    throttle = Throttle()
    admitted = [throttle.admit(1000.0) for _ in range(100)]
    assert [n for n in admitted if n is not None] == [0] * int(BURST)
    assert throttle.admit(1000.0 + 1 / PER_SECOND) == 100 - BURST
    assert throttle.admit(1000.0 + 1 / PER_SECOND) is None
    assert throttle.admit(5000.0) == 1
