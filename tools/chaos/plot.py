"""The picture of a run: the outage of every fault, a row per kind, on a logarithmic scale of time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt

_FLOOR_MS = 2.0  # where "no probe lost" is drawn: below one interval of probes


def plot_outages(path: Path, outages: Mapping[str, Sequence[float]], title: str) -> None:
    """Write a PNG. `outages` are ms per fault by kind; 0 is a fault that cost no probe."""
    mpl.use("Agg")
    kinds = sorted(outages, key=lambda kind: (max(outages[kind]), kind))
    figure, axes = plt.subplots(figsize=(10, 1.5 + 0.32 * len(kinds)), layout="constrained")
    for row, kind in enumerate(kinds):
        values = sorted(outages[kind])
        lost = [value for value in values if value > 0]
        axes.plot(lost, [row] * len(lost), "o", color="tab:red", alpha=0.45, markersize=6, markeredgewidth=0)
        none = len(values) - len(lost)
        if none:
            axes.plot([_FLOOR_MS], [row], "o", color="tab:green", markersize=6)
            axes.annotate(
                f"{none} x", (_FLOOR_MS, row), xytext=(-6, 0), textcoords="offset points", ha="right", va="center"
            )
        axes.plot([max(_FLOOR_MS, values[len(values) // 2])], [row], "|", color="black", markersize=16)
    axes.set_yticks(range(len(kinds)), [f"{kind}  ({len(outages[kind])})" for kind in kinds])
    axes.set_xscale("log")
    axes.set_xlim(_FLOOR_MS / 2, None)
    axes.set_xlabel("outage of the tunnels in scope, ms (green: no probe lost; bar: median)")
    axes.grid(axis="x", which="both", alpha=0.25)
    axes.set_title(title, fontsize=10)
    figure.savefig(path, dpi=110)
    plt.close(figure)
