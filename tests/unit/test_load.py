"""The search for the highest rate without loss, on tunnels that are made up."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import pytest

from tools.bench import load
from tools.bench.bed import Contender
from tools.bench.load import Arrived

NOBODY = cast(Contender, None)
Model = Callable[[float], float]


@pytest.fixture
def offered(monkeypatch: pytest.MonkeyPatch) -> Callable[[Model, float], list[float]]:
    """Puts a tunnel in place that delivers what `model` makes of a rate; returns the list of rates it is offered."""

    def pretend(model: Model, flood: float) -> list[float]:
        rates: list[float] = []

        def send(_contender: Contender, _size: int, rate: float) -> Arrived:
            rates.append(rate)
            received = model(rate or flood)
            return Arrived(1 - received / (rate or flood), rate or flood, received)

        monkeypatch.setattr(load, "send", send)
        return rates

    return pretend


@pytest.mark.parametrize("capacity", [1_000.0, 42_000.0, 180_000.0])
def test_the_rate_where_loss_begins_is_found(offered: Callable[..., list[float]], capacity: float) -> None:
    rates = offered(lambda rate: min(rate, capacity), 400_000.0)
    assert load.highest_rate(NOBODY, 36) == pytest.approx(capacity, rel=0.03)
    assert len(rates) <= 1 + load.TRIALS


def test_a_tunnel_that_collapses_under_a_flood_is_still_given_its_due(offered: Callable[..., list[float]]) -> None:
    offered(lambda rate: rate if rate <= 50_000 else 15_000, 400_000.0)
    assert load.highest_rate(NOBODY, 36) == pytest.approx(50_000, rel=0.04)


def test_what_loses_nothing_of_a_flood_is_not_asked_again(offered: Callable[..., list[float]]) -> None:
    rates = offered(lambda rate: rate, 400_000.0)
    assert load.highest_rate(NOBODY, 36) == 400_000
    assert rates == [0]


def test_where_every_rate_loses_there_is_none(offered: Callable[..., list[float]]) -> None:
    offered(lambda rate: 0.9 * rate, 400_000.0)
    assert load.highest_rate(NOBODY, 36) == 0
