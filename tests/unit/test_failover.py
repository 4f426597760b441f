"""Who carries nothing: `failover`."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from mpq_supervisor.config import parse
from mpq_supervisor.failover import Failover
from mpq_supervisor.plan import make_plan
from tests.unit.test_network import SITE


class Pair(Failover):
    """With `cr2`, which is UP, as the fallback of `cr1`."""

    def look(self, cr1: bool, now: float) -> frozenset[str]:
        return self.step({"cr1": cr1, "cr2": True}, {"cr1": ["cr2"], "cr2": []}, now)


def alone(failover: Failover, up: Mapping[str, bool], now: float) -> frozenset[str]:
    """Nobody has a fallback."""
    return failover.step(up, {name: [] for name in up}, now)


def test_down_after_a_while_and_back_after_a_longer_one() -> None:
    failover = Pair(1.0, 10.0)
    said = [failover.look(now >= 5, now) for now in range(20)]
    assert said[0] == frozenset(), "not UP yet is no news"
    assert {now for now, down in enumerate(said) if down == {"cr1"}} == set(range(1, 15))


def test_a_restart_moves_nothing() -> None:
    failover = Pair(1.0, 10.0)
    up = [True, True, False, True, False, True]
    assert not any(failover.look(now, 0.75 * n) for n, now in enumerate(up))


def test_one_that_flaps_stays_down() -> None:
    failover = Pair(1.0, 10.0)
    for now in range(3):
        failover.look(False, now)
    assert all(failover.look(now % 9 != 0, now) == {"cr1"} for now in range(3, 60))


def test_one_in_whose_place_there_is_nobody_is_back_at_once() -> None:
    """Its traffic is refused meanwhile: there is nothing to spare it."""
    failover = Failover(1.0, 10.0)
    said = [alone(failover, {"cr1": now >= 5, "cr2": now >= 5}, now) for now in range(8)]
    assert {now for now, down in enumerate(said) if down} == set(range(1, 5))
    both_down = {"cr1": ["cr2"], "cr2": ["cr1"]}
    for now in range(10, 13):
        failover.step({"cr1": False, "cr2": False}, both_down, now)
    assert failover.step({"cr1": True, "cr2": False}, both_down, 13) == {"cr2"}


@pytest.mark.parametrize(("routed", "down"), [("critical", set()), ("bulk", {"cr1"})])
def test_one_with_a_lan_that_keeps_its_addresses_is_back_at_once(routed: str, down: set[str]) -> None:
    """No other may carry that LAN, whoever carries the rest."""
    lans = f'[[lan]]\nname = "lan2"\ninterface = "lan2"\nwan = "wan4"\nmasquerade = false\nclass = "{routed}"\n'
    lans = f'[[lan]]\nname = "lan1"\ninterface = "lan1"\nwan = "wan4"\n{lans}'
    plan = make_plan(parse(SITE[: SITE.index("lan =")].replace("rate_mbit = 18.0", 'fallback = ["wan5"]') + lans))
    failover, stand_ins = Failover(1.0, 10.0), {t.name: [o.name for o in plan.stand_ins(t)] for t in plan.tunnels}
    for now in range(3):
        said = failover.step({name: name != "cr1" for name in stand_ins}, stand_ins, now)
    assert said == {"cr1"}
    assert failover.step(dict.fromkeys(stand_ins, True), stand_ins, 3) == down


def test_one_that_was_taken_out_is_forgotten() -> None:
    failover = Failover(0.0, 10.0)
    assert alone(failover, {"cr1": False}, 0) == {"cr1"}
    assert alone(failover, {}, 1) == frozenset()
    assert alone(failover, {"cr1": True}, 2) == frozenset()
