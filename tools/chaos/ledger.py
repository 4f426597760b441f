"""What the product and the kernel say that they dropped: the other side of the probes' account."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil

from tools.system import SIDES, System
from tools.topology import ROLES

_Key = tuple[str, int | None, str]  # who, as which process, why
_BUFFERS = ("RcvbufErrors", "SndbufErrors")


class Ledger:
    """Counters of drops at both ends and in every namespace between. `turn` the page after each fault."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._before = Counter(dict(self._read()))

    def turn(self) -> dict[str, int]:
        """What was dropped since the last time, by who and why. Raises OSError where no supervisor answers.

        Of a worker that has died since, what it dropped after its last report is not known.
        """
        now = Counter(dict(self._read()))
        told: Counter[str] = Counter()
        for (who, _, why), count in (now - self._before).items():
            told[f"{who} {why}"] += count
        self._before = now
        return dict(told)

    def _read(self) -> Iterator[tuple[_Key, int]]:
        for side in SIDES:
            for worker in self._system.status(side).workers:
                for reason, count in worker.drops.items():
                    yield (f"{side} {worker.name}", worker.pid, reason), count
        for line, stats in self._system.lab.relay.stats().items():
            yield (f"relay {line}", None, "dropped"), stats.overflow + stats.refused + stats.missed
        for role in ROLES:
            with self._system.inside(role):
                counts = [*_interfaces(), *_sockets()]
            for who, why, count in counts:
                yield (f"{role} {who}", None, why), count


def _interfaces() -> Iterator[tuple[str, str, int]]:
    for name, counted in psutil.net_io_counters(pernic=True, nowrap=False).items():
        yield name, "rx_dropped", counted.dropin
        yield name, "tx_dropped", counted.dropout


def _sockets() -> Iterator[tuple[str, str, int]]:
    """Of IPv4, a line of names and one of numbers; of IPv6, a line for each."""
    lines = [line.split() for line in Path("/proc/thread-self/net/snmp").read_text().splitlines()]
    names, counts = (line for line in lines if line[0] == "Udp:")
    of_ipv6 = map(str.split, Path("/proc/thread-self/net/snmp6").read_text().splitlines())
    for name, count in (*zip(names, counts, strict=True), *of_ipv6):
        if name.removeprefix("Udp6") in _BUFFERS:
            yield "UDP", name.removeprefix("Udp6"), int(count)
