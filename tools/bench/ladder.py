"""The ladder: mpq beside its contenders, A B A B, on beds that are all there at the same time."""

from __future__ import annotations

import os
from collections import defaultdict
from contextlib import ExitStack
from typing import Literal, NamedTuple

from tools.bench.bed import Contender
from tools.bench.contenders import Bare, Copy, OpenVpn, WireGuard
from tools.bench.measures import MEASURES
from tools.bench.mpq import AioquicOnly, Mpq
from tools.results import Results, ratio

CONTENDERS: tuple[type[Contender], ...] = (Bare, Copy, OpenVpn, WireGuard, AioquicOnly, Mpq)
OURS = Mpq.label


class Target(NamedTuple):
    """What ours divided by a contender's shall be, at least or at most. Without a target it is only told."""

    measure: str
    contender: str
    ratio: float | None
    better: Literal["higher", "lower"] = "higher"

    @property
    def id(self) -> str:
        """Against the bare path the contender is left out."""
        return f"{self.measure}.ratio" + f".{self.contender}" * (self.contender != Bare.label)


RATIOS = (
    Target("tcp.one_stream", "bare", None),
    Target("tcp.one_stream", "copy", 0.60),
    Target("tcp.one_stream", "wireguard", 8),
    Target("tcp.one_stream", "openvpn", 4.5),
    Target("udp.64B", "bare", None),
    Target("udp.64B", "wireguard", 3.5),
    Target("udp.64B", "openvpn", 1.8),
    Target("udp.full", "bare", None),
    Target("udp.full", "copy", 0.9),
    Target("tcp.cpu.send", "wireguard", 0.13, "lower"),
    Target("tcp.cpu.receive", "wireguard", 0.13, "lower"),
    Target("rtt.idle.p50", "openvpn", 1.1, "lower"),
    Target("rtt.idle.p99", "openvpn", 1.1, "lower"),
    Target("rtt.loaded.p99", "openvpn", 0.4, "lower"),
)
BUSY_MEMORY_MB = 16
UNITS = {
    "tcp.cpu": "s/Gbit",
    "tcp": "Mbit/s",
    "udp": "kpps",
    "rtt.idle.lost": "1",
    "rtt.loaded.lost": "1",
    "rtt": "ms",
    "memory": "MB",
}
"""By the beginning of a measure's name, the first that fits."""
_OURS_ALONE = ("tcp.cpu.send", "tcp.cpu.receive")
"""Measures whose row has no contender in its id where it is ours, as before there were others."""

Samples = dict[str, dict[str, list[float]]]
"""Runs by measure and contender, all in the same order."""


def ladder(results: Results, runs: int) -> None:
    """TCP, UDP, round trips, CPU and memory of every contender in turn, again and again."""
    samples: Samples = defaultdict(lambda: defaultdict(list))
    with ExitStack() as stack:
        contenders = [stack.enter_context(make(f"mpq{make.label}{os.getpid()}")) for make in CONTENDERS]
        for measure in MEASURES:
            print(f"    {(measure.__doc__ or '').splitlines()[0]}", flush=True)
            for _ in range(runs):
                for contender in contenders:
                    for name, value in measure(contender).items():
                        samples[name][contender.label].append(value)
    add_rows(results, samples)


def add_rows(results: Results, samples: Samples) -> None:
    """A row for every measure and contender that has a figure, the ratios, and what ours adds to the bare path."""
    for measure, by_contender in samples.items():
        for contender, values in by_contender.items():
            limit = BUSY_MEMORY_MB if contender == OURS and measure.startswith("memory.busy") else None
            results.add(row_id(measure, contender), values, unit_of(measure), target=limit)
    for target in RATIOS:
        runs = samples[target.measure]
        ratios = [ratio(ours, other) for ours, other in zip(runs[OURS], runs[target.contender], strict=True)]
        results.add(target.id, ratios, "1", target=target.ratio, better=target.better)
    for rank in ("p50", "p99"):
        runs = samples[f"rtt.idle.{rank}"]
        added = [ours - bare for ours, bare in zip(runs[OURS], runs[Bare.label], strict=True)]
        results.add(f"rtt.added.{rank}", added, "ms")


def row_id(measure: str, contender: str) -> str:
    """Where a contender's figure stands."""
    return measure if contender == OURS and measure in _OURS_ALONE else f"{measure}.{contender}"


def unit_of(measure: str) -> str:
    """Its unit, by `UNITS`."""
    return next(unit for beginning, unit in UNITS.items() if measure.startswith(beginning))
