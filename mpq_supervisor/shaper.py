"""Traffic control as it should be on a WAN whose rate is known: HTB, critical first. Pure; `shaping` applies it."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from mpq_supervisor.plan import ClassPlan, WanPlan
from mpq_worker.contract import TrafficClass

SHAPER_HANDLE = 0x6D70  # "mp": by this major number the root qdisc is known as ours
LEAF_DELAY = 0.020  # seconds of traffic that a leaf may queue
LEAF_MINIMUM = 10 * 1514  # bytes: enough for a burst of ten full packets on a slow link
ASSURED = 0.01  # share of the rate that default and bulk each get against a critical that wants everything


class ShaperClass(msgspec.Struct, frozen=True):
    """An HTB class. Rates in bytes per second, `limit` of its leaf in bytes; without `dscp`, for the rest."""

    minor: int
    prio: int
    rate: int
    ceil: int
    limit: int
    dscp: int | None = None


class Shaper(msgspec.Struct, frozen=True):
    """HTB on one WAN: a class of the whole rate (minor 1) over one leaf per traffic class."""

    interface: str
    rate: int
    classes: tuple[ShaperClass, ...]

    def __str__(self) -> str:
        return f"HTB of {self.rate * 8 / 1e6:g} Mbit/s on {self.interface}"


def shaper(wan: WanPlan, classes: Iterable[ClassPlan]) -> Shaper | None:
    """HTB for a WAN whose rate is known.

    Classes borrow in the order of `prio`, but what a class is assured comes before what others borrow. So
    critical is assured nearly all and the others next to nothing: strict preference without starvation.
    """
    if wan.rate_mbit is None:
        return None
    total = int(wan.rate_mbit * 1e6 / 8)
    small = max(1, int(total * ASSURED))
    by_class = {plan.traffic_class: plan for plan in classes}
    leaves = []
    for place, traffic_class in enumerate(TrafficClass):  # critical, default, bulk
        plan = by_class.get(traffic_class)
        leaves.append(
            ShaperClass(
                minor=16 * (place + 1),
                prio=place,
                rate=total - 2 * small if place == 0 else small,
                ceil=total,
                limit=max(LEAF_MINIMUM, int(total * LEAF_DELAY)),
                dscp=plan.dscp if plan and traffic_class is not TrafficClass.DEFAULT else None,
            )
        )
    return Shaper(wan.interface, total, tuple(leaves))
