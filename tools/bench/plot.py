"""The ladder as a picture: one bar per contender, from results that have its rows."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure

from tools.bench.ladder import row_id
from tools.results import Results


class Panel(NamedTuple):
    """One diagram: a bar for each of `measures`, by its label, at every contender."""

    title: str
    measures: dict[str, str]


PANELS = (
    Panel("TCP, Mbit/s", {"one stream": "tcp.one_stream", "four": "tcp.four_streams"}),
    Panel("UDP free of loss, kpps", {"64 B": "udp.64B", "200 B": "udp.200B", "full": "udp.full"}),
    Panel("CPU, s/Gbit", {"sender": "tcp.cpu.send", "receiver": "tcp.cpu.receive"}),
    Panel("RTT idle, ms", {"p50": "rtt.idle.p50", "p99": "rtt.idle.p99"}),
    Panel("RTT beside TCP, ms", {"p50": "rtt.loaded.p50", "p99": "rtt.loaded.p99"}),
)


def draw(results: Results, contenders: list[str], path: Path) -> None:
    """Write a PNG with the contenders from top to bottom; the scale is logarithmic."""
    values = {row.id: row.value for row in results.rows}
    figure = Figure(figsize=(4 * len(PANELS), 1.2 + 0.6 * len(contenders)))
    axes = figure.subplots(1, len(PANELS), sharey=True)
    for axis, panel in zip(axes, PANELS, strict=True):
        height = 0.8 / len(panel.measures)
        for place, (label, measure) in enumerate(panel.measures.items()):
            bars = axis.barh(
                [row + place * height for row in range(len(contenders))],
                [values.get(row_id(measure, name), 0.0) for name in contenders],
                height,
                label=label,
            )
            axis.bar_label(bars, fmt=_short, fontsize=7, padding=2)
        axis.set(title=panel.title, xscale="log")
        axis.margins(x=0.25)
        axis.legend(fontsize=7, loc="upper left")  # looking for the best place can take a second
    axes[0].set_yticks([row + 0.4 - height / 2 for row in range(len(contenders))], contenders)
    axes[0].invert_yaxis()
    figure.suptitle(f"mpq {results.meta.commit}, Linux {results.meta.kernel}, {results.meta.cpus} CPUs")
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def _short(value: float) -> str:
    """Three digits that matter; nothing for a bar that is not there."""
    return "" if not value else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
