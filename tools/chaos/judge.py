"""Whose fault is each lost, overtaken or doubled probe? Pure.

A fault may cost its own tunnels what was under way when it came, and packets from then on until `bound` seconds after
its end, but not beyond the next fault, nor what comes after a tunnel has lost nothing for `CALM_NS`. Everything
outside of that is a violation; so is a probe that arrives much too late, and a time in which none was sent.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence

import msgspec

from tools.chaos.kinds import BY_NAME
from tools.chaos.plan import Fault
from tools.probe_report import ProbeStream

CALM_NS = 1_000_000_000
"""A tunnel that loses nothing for so long after the end of a fault has recovered."""
UNWATCHED_NS = 1_000_000_000
"""The longest time without a probe that counts as being watched."""


class Event(msgspec.Struct, frozen=True):
    """A fault as it came: from `begin_ns` to `end_ns`, everything UP again at `up_ns` (None: not in time).

    `drops` are the packets that the product and the kernel counted as dropped from then on to the next fault, by who
    and why (`ledger`).
    """

    fault: Fault
    begin_ns: int
    end_ns: int
    up_ns: int | None
    drops: dict[str, int] = {}


class Damage(msgspec.Struct, frozen=True):
    """What a fault cost one tunnel in one direction.

    `outage_ms` is from the first lost probe's sending to that of the first that arrived after the last lost one;
    `gaps` is the number of separate runs of losses in it.
    """

    tunnel: str
    way: str
    lost: int
    gaps: int
    outage_ms: float
    reordered: int


class Impact(msgspec.Struct, frozen=True):
    """A fault and the damage to each of its tunnels that had any."""

    event: Event
    damages: tuple[Damage, ...]

    @property
    def outage_ms(self) -> float:
        """The longest outage of any of its tunnels, 0 of none."""
        return max((damage.outage_ms for damage in self.damages), default=0.0)

    @property
    def lost(self) -> int:
        """Probes lost, all its tunnels and both directions together."""
        return sum(damage.lost for damage in self.damages)


class Verdict(msgspec.Struct, frozen=True):
    """The impact of every fault, and in words what no fault excuses; `unexcused` counts the probes of that."""

    impacts: list[Impact]
    violations: list[str]
    unexcused: int


def judge(events: Sequence[Event], streams: Sequence[ProbeStream]) -> Verdict:
    """Attribute everything that befell the probes. `events` are in order of time and do not overlap."""
    damages: dict[int, list[Damage]] = {event.fault.number: [] for event in events}
    violations, unexcused = [], 0
    for stream in streams:
        begins = [stream.under_way_ns(event.begin_ns) for event in events]
        windows = list(_windows(events, stream, begins))
        for event, begin, end in windows:
            damage = _damage(stream, begin, end)
            if damage.lost or damage.reordered:
                damages[event.fault.number].append(damage)
        for what, times in _mishaps(stream):
            excused = windows if what != "doubled" else []
            foreign = [at for at in times if not any(begin <= at < end for _, begin, end in excused)]
            unexcused += len(foreign)
            violations += [
                f"{stream.name} {stream.way}: {text}" for text in _tell(what, stream.name, foreign, events, begins)
            ]
        pause = _unwatched_ns(stream, events)
        if pause > UNWATCHED_NS:
            violations.append(f"{stream.name} {stream.way}: no probe was sent for {pause / 1e9:.1f} s")
        if stream.strays:
            violations.append(f"{stream.name} {stream.way}: {stream.strays} packets that are not this tunnel's")
    for event in events:
        if event.up_ns is None:
            violations.append(f"not everything UP in time after {event.fault}")
    return Verdict([Impact(event, tuple(damages[event.fault.number])) for event in events], violations, unexcused)


def _windows(events: Sequence[Event], stream: ProbeStream, begins: Sequence[int]) -> Iterator[tuple[Event, int, int]]:
    """Each fault that may touch a tunnel, and from when to when a probe must have been sent for that."""
    for event, begin, limit in zip(events, begins, [*begins[1:], 1 << 62], strict=True):
        if stream.name in event.fault.tunnels:
            bound = event.end_ns + round(BY_NAME[event.fault.kind].bound * 1e9)
            end = min(bound, limit)
            yield event, begin, min(end, _recovered_ns(stream, begin, event.end_ns, end))


def _unwatched_ns(stream: ProbeStream, events: Sequence[Event]) -> int:
    """The longest time without a probe, from a little before the first fault to the end of the last one."""
    if not events:
        return 0
    return stream.longest_pause_ns(events[0].begin_ns - 2 * UNWATCHED_NS, events[-1].end_ns)


def _recovered_ns(stream: ProbeStream, begin: int, over: int, end: int) -> int:
    """When nothing had been lost for `CALM_NS` since the fault was over."""
    calm = over
    for outage in stream.outages(begin, end):
        if outage.begin_ns >= calm + CALM_NS:
            break
        calm = max(calm, outage.end_ns)
    return calm + CALM_NS


def _damage(stream: ProbeStream, begin: int, end: int) -> Damage:
    outages = stream.outages(begin, end)
    return Damage(
        tunnel=stream.name,
        way=stream.way,
        lost=sum(outage.lost for outage in outages),
        gaps=len(outages),
        outage_ms=(outages[-1].end_ns - outages[0].begin_ns) / 1e6 if outages else 0.0,
        reordered=sum(1 for at in stream.reordered_ns() if begin <= at < end),
    )


def _mishaps(stream: ProbeStream) -> Iterator[tuple[str, list[int]]]:
    yield "lost", stream.losses_ns()
    yield "overtaken", stream.reordered_ns()
    yield "doubled", stream.duplicated_ns()
    yield "more than a second late", stream.late_ns()


def _tell(what: str, tunnel: str, times: list[int], events: Sequence[Event], begins: Sequence[int]) -> Iterator[str]:
    """One line per fault before which, or after which, probes suffered that it does not excuse."""
    after: dict[int, list[int]] = {}
    for at in times:
        index = bisect_right(begins, at)
        after.setdefault(index, []).append(at)
    for index, hits in after.items():
        if not index:
            yield f"{len(hits)} {what} before any fault"
            continue
        event = events[index - 1]
        first, last = ((at - event.begin_ns) / 1e9 for at in (hits[0], hits[-1]))
        span = f"{first:.2f} to {last:.2f} s after the beginning of {event.fault}"
        own = [f"{count} {who.split()[2]}" for who, count in event.drops.items() if who.startswith(f"site {tunnel} ")]
        yield f"{len(hits)} {what}, {span}; the site counted {', '.join(sorted(own)) or 'none'}"
