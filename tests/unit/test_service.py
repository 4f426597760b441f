"""When the portal looks: once in every second, also by a loop that wakes too soon or too late."""

from __future__ import annotations

import pytest

from mpq_supervisor.portal.service import until_next_look


@pytest.mark.parametrize("off", [-0.009, -0.001, 0.0, 0.001, 0.3, 0.48])
def test_no_second_twice_and_none_missed(off: float) -> None:
    wall, seconds = 1e9, []
    for _ in range(1000):
        wall += until_next_look(wall) + off
        seconds.append(int(wall))
    assert seconds == list(range(seconds[0], seconds[0] + 1000))
