"""What a WAN carried in a month."""

from __future__ import annotations

from datetime import UTC, datetime

from mpq_supervisor.portal.meter import Meter
from mpq_supervisor.status import WanCounters

MAY, JUNE, JULY = (datetime(2026, month, 10, tzinfo=UTC).timestamp() for month in (5, 6, 7))


def meter(*readings: tuple[float, int, int], interface: str = "eth1", after: Meter | None = None) -> Meter:
    """One that has seen these counters of wan5, after another."""
    found = Meter({} if after is None else after.readings)
    for wall, received, sent in readings:
        found.note({"wan5": WanCounters(interface, received, sent)}, wall)
    return found


def test_both_ways_count_from_the_first_look_on() -> None:
    assert meter((MAY, 1000, 500), (MAY, 1010, 507)).volumes(MAY) == {"wan5": 17}


def test_a_month_begins_at_nought_and_what_was_carried_unseen_is_added() -> None:
    first = meter((MAY, 0, 0), (MAY, 100, 0))
    later = meter((JUNE, 130, 5), after=first)
    assert later.volumes(MAY) == {"wan5": 100}
    assert later.volumes(JUNE) == {"wan5": 35}


def test_an_interface_that_began_anew_counts_from_nought_and_another_one_from_now() -> None:
    assert meter((MAY, 100, 100), (MAY, 30, 200)).volumes(MAY) == {"wan5": 130}
    assert meter((MAY, 900, 900), interface="eth2", after=meter((MAY, 1, 1), (MAY, 2, 2))).volumes(MAY) == {"wan5": 2}


def test_a_clock_that_goes_wrong_for_a_while_loses_nothing() -> None:
    wrong = datetime(2090, 1, 1, tzinfo=UTC).timestamp()
    found = meter(
        (MAY, 0, 0), (MAY, 100, 0), (wrong, 110, 0), (0.0, 120, 0), (MAY, 150, 0), (JUNE, 160, 0), (JULY, 161, 0)
    )
    assert found.volumes(JULY) == {"wan5": 1}
    assert meter((MAY, 0, 0), (MAY, 100, 0), (wrong, 110, 0), (MAY, 150, 0)).volumes(MAY) == {"wan5": 140}


def test_a_wan_that_is_away_keeps_its_month_and_is_forgotten_with_it() -> None:
    found = meter((MAY, 0, 0), (MAY, 100, 0))
    found.note({}, MAY)
    assert found.volumes(MAY) == {"wan5": 100}
    found.note({}, JUNE)
    assert found.readings == {}
