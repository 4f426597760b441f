"""Links that come and go: `damping`."""

from __future__ import annotations

from mpq_supervisor.damping import FREE_FALLS, HOLD, WINDOW, Damper
from mpq_supervisor.network import LinkState


def link(up: bool, address: str = "192.0.2.1") -> tuple[LinkState, bool]:
    return LinkState("wan4", "wan4", 1, up, address), up


def storm(damper: Damper, count: int, start: float, period: float) -> list[bool]:
    """Falls and returns; whether each return was told."""
    told = []
    for n in range(count):
        damper.step({"wan4": link(False)}, start + n * period)
        told.append(not damper.step({"wan4": link(True)}, start + (n + 0.5) * period)["wan4"].flaps)
    return told


def test_a_few_falls_are_told_as_they_are() -> None:
    damper = Damper()
    assert damper.step({"wan4": link(True)}, 0.0)["wan4"] == link(True)[0]
    assert all(storm(damper, FREE_FALLS, 1.0, 0.2))
    assert damper.wakes_at() is None


def test_a_storm_is_one_outage_until_the_link_is_still() -> None:
    damper = Damper()
    damper.step({"wan4": link(True)}, 0.0)
    told = storm(damper, 50, 1.0, 0.2)
    assert told == [True] * FREE_FALLS + [False] * (50 - FREE_FALLS)
    last = 1.0 + 49.5 * 0.2
    assert damper.wakes_at() == last + HOLD
    assert damper.step({"wan4": link(True)}, last + HOLD - 0.01)["wan4"].flaps
    assert damper.step({"wan4": link(True)}, last + HOLD)["wan4"] == link(True)[0]
    assert damper.wakes_at() is None
    assert all(storm(damper, FREE_FALLS, last + HOLD + 1, 0.2)), "what was is forgotten"


def test_falls_with_time_between_them_are_told() -> None:
    damper = Damper()
    damper.step({"wan4": link(True)}, 0.0)
    assert all(storm(damper, 100, 1.0, WINDOW / (FREE_FALLS - 1)))


def test_another_address_is_no_fall() -> None:
    damper = Damper()
    for n in range(100):
        assert not damper.step({"wan4": link(True, f"192.0.2.{n}")}, n * 0.1)["wan4"].flaps


def test_one_link_is_held_and_not_the_other() -> None:
    damper = Damper()
    for n in range(40):
        told = damper.step({"wan4": link(n % 2 == 0), "wan5": link(True)}, n * 0.1)
    assert (told["wan4"].flaps, told["wan5"].flaps) == (True, False)
    assert damper.step({"wan5": link(True)}, 9.0).keys() == {"wan5"}
    assert damper.wakes_at() is None
