"""What each WAN of a site has carried in a month, from the counters of its interface. Pure.

What they counted while there was no portal, or no supervisor, is added when they are seen again.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

import msgspec

from mpq_supervisor.status import WanCounters

MONTHS = 3
"""That are kept: a clock that goes wrong for a while begins none of them anew."""


class Reading(msgspec.Struct, frozen=True):
    """Of one WAN: its counters as they were last, and bytes both ways by `month_of`."""

    counters: WanCounters
    months: dict[int, int] = {}


def month_of(t: float) -> int:
    """The month (year * 12 + month, UTC) of a Unix time."""
    day = datetime.fromtimestamp(t, UTC)
    return day.year * 12 + day.month


class Meter:
    """`readings` are by WAN, those of an earlier portal to begin with."""

    def __init__(self, readings: Mapping[str, Reading]) -> None:
        self.readings = dict(readings)

    def note(self, wans: Mapping[str, WanCounters], wall: float) -> None:
        """The counters at Unix time `wall`. A WAN that is new, or on another interface, is counted from now on."""
        month = month_of(wall)
        for name, counters in wans.items():
            last = self.readings.get(name, Reading(counters))
            months = {**last.months, month: last.months.get(month, 0) + _grown(last.counters, counters)}
            newest = sorted(months)[-MONTHS:]
            self.readings[name] = Reading(counters, {key: months[key] for key in newest})
        self.readings = {n: reading for n, reading in self.readings.items() if n in wans or month in reading.months}

    def volumes(self, wall: float) -> dict[str, int]:
        """This month's bytes by WAN."""
        month = month_of(wall)
        return {name: reading.months.get(month, 0) for name, reading in self.readings.items()}


def _grown(last: WanCounters, now: WanCounters) -> int:
    """Counters that are less than they were began anew, with the host or the interface."""
    if last.interface != now.interface:
        return 0
    pairs = ((last.received, now.received), (last.sent, now.sent))
    return sum(after if after < before else after - before for before, after in pairs)
