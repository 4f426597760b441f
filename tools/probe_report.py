"""What became of numbered probes: each one sent has arrived or is lost, and its time is known. Pure.

Times are ns on the monotonic clock, which is one for all processes of a machine.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise

import msgspec

from tools.results import percentile

UNDER_WAY_NS = 1_000_000_000
"""Nothing takes longer than this through a tunnel, its queues included."""
_SILENCE_NS = 250_000_000
"""Probes of a tunnel that goes come closer together, also where they come in bursts for want of CPU."""


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What one end of a flow saw. The bytes are arrays of native int64, by number or of numbers.

    `sent` and `arrived` are times, 0 in `arrived` for what did not come; `reordered` and `duplicated` are numbers.
    `refused` were not taken by the sender's kernel (and are lost), `strays` belonged to another flow or were no
    probes, `overrun` is what the receiver itself was too slow to take.
    """

    name: str
    sent: bytes
    arrived: bytes
    reordered: bytes
    duplicated: bytes
    refused: int
    strays: int
    overrun: int


class Outage(msgspec.Struct, frozen=True):
    """Consecutive probes that were lost: from the first's sending to that of the next one that arrived."""

    begin_ns: int
    end_ns: int
    lost: int

    @property
    def ms(self) -> float:
        """How long it lasted."""
        return (self.end_ns - self.begin_ns) / 1e6


class Delay(msgspec.Struct, frozen=True):
    """One-way times in ms of the probes that arrived; nan of none."""

    p50_ms: float
    p99_ms: float
    max_ms: float


class ProbeStream(msgspec.Struct, frozen=True, kw_only=True):
    """One flow in one direction, probe by probe: sent at `sent[n]`, arrived at `arrived[n]` or never (0)."""

    name: str
    way: str  # "up": near to far
    sent: Sequence[int]
    arrived: Sequence[int]
    reordered: Sequence[int]  # numbers that arrived after a higher one
    duplicated: Sequence[int]  # numbers that arrived more than once
    refused: int
    strays: int
    overrun: int

    @property
    def lost(self) -> int:
        """Probes that never arrived."""
        return sum(1 for at in self.arrived if not at)

    def losses_ns(self, begin_ns: int = 0, end_ns: int = 1 << 62) -> list[int]:
        """When each lost probe of a window had been sent."""
        return [self.sent[i] for i in self._numbers(begin_ns, end_ns) if not self.arrived[i]]

    def sent_in(self, begin_ns: int, end_ns: int) -> int:
        """Probes sent at or after the one time and before the other."""
        return len(self._numbers(begin_ns, end_ns))

    def outages(self, begin_ns: int = 0, end_ns: int = 1 << 62) -> list[Outage]:
        """Runs of lost probes that began in a window, in order."""
        found: list[Outage] = []
        numbers = self._numbers(begin_ns, end_ns)
        number = numbers.start
        while number < numbers.stop:
            if self.arrived[number]:
                number += 1
                continue
            first = number
            while number < len(self.sent) and not self.arrived[number]:
                number += 1
            end = self.sent[number] if number < len(self.sent) else self.sent[-1]
            found.append(Outage(self.sent[first], end, number - first))
        return found

    def under_way_ns(self, at_ns: int) -> int:
        """When the oldest probe had been sent that may still have been under way at a time, on a way that keeps the
        order: the one after the newest that had arrived by then, and no earlier than that one's own time on the way,
        and a little, before. `UNDER_WAY_NS` before it at most."""
        end = number = bisect_left(self.sent, at_ns)
        oldest = bisect_left(self.sent, at_ns - UNDER_WAY_NS)
        while number > oldest and not 0 < self.arrived[number - 1] <= at_ns:
            number -= 1
        if number > oldest:
            took = self.arrived[number - 1] - self.sent[number - 1]
            number = max(number, bisect_left(self.sent, at_ns - took - _SILENCE_NS, hi=end))
        return self.sent[number] if number < len(self.sent) else at_ns

    def reordered_ns(self) -> list[int]:
        """When each probe that a later one overtook had been sent."""
        return [self.sent[number] for number in self.reordered]

    def late_ns(self) -> list[int]:
        """When each probe that took longer than anything may had been sent."""
        return [sent for sent, arrived in zip(self.sent, self.arrived, strict=True) if arrived - sent > UNDER_WAY_NS]

    def longest_pause_ns(self, begin_ns: int, end_ns: int) -> int:
        """For how long of a time no probe was sent."""
        times = [begin_ns, *(self.sent[i] for i in self._numbers(begin_ns, end_ns)), end_ns]
        return max(later - earlier for earlier, later in pairwise(times))

    def duplicated_ns(self) -> list[int]:
        """When each probe that arrived more than once had been sent."""
        return [self.sent[number] for number in self.duplicated]

    def delay(self, begin_ns: int = 0, end_ns: int = 1 << 62) -> Delay:
        """One-way times of the probes sent in a window."""
        numbers = self._numbers(begin_ns, end_ns)
        times = sorted((self.arrived[i] - self.sent[i]) / 1e6 for i in numbers if self.arrived[i])
        return Delay(percentile(times, 50), percentile(times, 99), percentile(times, 100))

    def _numbers(self, begin_ns: int, end_ns: int) -> range:
        return range(bisect_left(self.sent, begin_ns), bisect_left(self.sent, end_ns))


def join(near: list[Record], far: list[Record]) -> list[ProbeStream]:
    """Both directions of every flow. Raises `ValueError` where a number arrived that was never sent."""
    streams = []
    for here, there in zip(near, far, strict=True):
        streams += [_stream("up", here, there), _stream("down", there, here)]
    return streams


def _stream(way: str, sender: Record, receiver: Record) -> ProbeStream:
    sent, arrived = _array(sender.sent), _array(receiver.arrived)
    if sender.name != receiver.name or len(arrived) > len(sent):
        raise ValueError(
            f"{sender.name} {way}: {len(sent)} probes sent, {receiver.name} got number {len(arrived) - 1}"
        )
    arrived.extend([0] * (len(sent) - len(arrived)))
    return ProbeStream(
        name=sender.name,
        way=way,
        sent=sent,
        arrived=arrived,
        reordered=_array(receiver.reordered),
        duplicated=_array(receiver.duplicated),
        refused=sender.refused,
        strays=receiver.strays,
        overrun=receiver.overrun,
    )


def _array(data: bytes) -> array[int]:
    values = array("q")
    values.frombytes(data)
    return values
