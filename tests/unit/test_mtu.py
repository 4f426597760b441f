"""The search for the largest packet that passes."""

from __future__ import annotations

import random

import pytest

from mpq_worker.mtu import GRAIN, LEAST, MAX_PROBES, RAISE_TIME, MtuSearch


def settle(search: MtuSearch, passes: int, now: float = 0.0, loss: float = 0.0, seed: int = 1) -> list[int]:
    """Probes until none is due; their sizes. `passes` is what the path lets through."""
    sizes, noise = [], random.Random(seed)
    while (size := search.due(now)) is not None:
        sizes.append(size)
        search.sent(len(sizes))
        assert search.due(now) is None  # one at a time
        search.on_fate(len(sizes), size <= passes and noise.random() >= loss, now)
        assert len(sizes) < 200
    return sizes


def test_what_is_configured_is_in_use_and_asked_once() -> None:
    search = MtuSearch(1400)
    assert search.mtu == 1400
    assert settle(search, 1500) == [1400]
    assert (search.mtu, search.due(1e9)) == (1400, None)


@pytest.mark.parametrize("passes", [1170, 1241, 1280, 1281, 1300, 1333, 1372, 1399])
def test_a_smaller_path_is_found(passes: int) -> None:
    search = MtuSearch(1400)
    sizes = settle(search, passes)
    assert passes - GRAIN < search.mtu <= passes
    assert sizes[:MAX_PROBES] == [1400] * MAX_PROBES


def test_nothing_below_what_every_path_carries() -> None:
    search = MtuSearch(1400)
    settle(search, 1000)
    assert search.mtu == LEAST
    small = MtuSearch(LEAST)
    assert (small.due(0.0), small.mtu) == (None, LEAST)


def test_until_it_is_sure_the_size_in_use_stays() -> None:
    search = MtuSearch(1400)
    for number in range(MAX_PROBES - 1):
        assert search.due(0.0) == 1400
        search.sent(number)
        search.on_fate(number, False, 0.0)
    assert search.mtu == 1400
    search.sent(99)
    search.on_fate(7, False, 0.0)  # another packet's
    assert search.due(0.0) is None
    search.on_fate(99, True, 0.0)
    assert (search.mtu, search.due(0.0)) == (1400, None)


def test_a_path_that_shrinks_and_grows() -> None:
    search = MtuSearch(1400)
    settle(search, 1500)
    search.suspect()
    assert settle(search, 1500) == [1400]  # it was a false alarm
    search.suspect()
    settle(search, 1300, now=10.0)
    assert 1300 - GRAIN < search.mtu <= 1300
    assert search.due(10.0 + RAISE_TIME - 1) is None
    settle(search, 1500, now=10.0 + RAISE_TIME)
    assert search.mtu == 1400


@pytest.mark.parametrize("seed", range(20))
def test_random_loss_is_no_small_path(seed: int) -> None:
    search = MtuSearch(1400)
    settle(search, 1500, loss=0.1, seed=seed)
    assert search.mtu == 1400
