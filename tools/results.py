"""The one shape of result files: `{"meta": …, "rows": [{"id", "value", "unit", "target", "met", "runs"}]}`.

Ids are stable and speak for themselves: `isolation.br2_30.cr2.received_ratio`.
"""

from __future__ import annotations

import datetime
import math
import os
import platform
import statistics
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import msgspec

_ROOT = Path(__file__).resolve().parent.parent


class Meta(msgspec.Struct, frozen=True):
    """Where and when the figures were made; `commit` is "unknown" outside a git repository."""

    commit: str
    kernel: str
    cpus: int
    date: str


class Row(msgspec.Struct, frozen=True):
    """One figure: the median of its runs, nan if any of them failed. `met` is None where there is no target."""

    id: str
    value: float
    unit: str
    target: float | None
    met: bool | None
    runs: list[float]


class Results(msgspec.Struct, frozen=True):
    """Figures as they are added."""

    meta: Meta
    rows: list[Row]

    @classmethod
    def here(cls) -> Results:
        """No figures yet, made on this machine now."""
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        return cls(Meta(_commit(), platform.release(), os.cpu_count() or 1, now), [])

    def add(
        self,
        id: str,
        runs: Sequence[float],
        unit: str,
        *,
        target: float | None = None,
        better: Literal["lower", "higher"] = "lower",
    ) -> Row:
        """Add a figure; its target is met at equality too. Raises `ValueError` on a second figure of that id."""
        if any(row.id == id for row in self.rows):
            raise ValueError(f"result {id} is there already")
        value = float("nan") if _any_failed(runs) else statistics.median(runs)
        met = None if target is None else (value <= target if better == "lower" else value >= target)
        row = Row(id, value, unit, target, met, list(runs))
        self.rows.append(row)
        return row

    def write(self, path: Path) -> None:
        """Write the file, its directory too if need be. nan becomes null."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n")

    def table(self) -> str:
        """The figures as text, a line each."""
        cells = [("result", "value", "unit", "target", "")]
        for row in self.rows:
            target = "" if row.target is None else f"{row.target:g}"
            cells.append(
                (row.id, f"{row.value:.6g}", row.unit, target, {True: "met", False: "MISSED", None: ""}[row.met])
            )
        widths = [max(len(line[i]) for line in cells) for i in range(5)]
        pad = (str.ljust, str.rjust, str.ljust, str.rjust, str.ljust)
        return "\n".join(
            "  ".join(p(c, w) for p, c, w in zip(pad, line, widths, strict=True)).rstrip() for line in cells
        )


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Nearest-rank percentile of values in ascending order; nan of nothing, or where there is one among them."""
    if not ordered or _any_failed(ordered):
        return float("nan")
    rank = -(-len(ordered) * percent // 100)  # rounded up
    return ordered[max(0, int(rank) - 1)]


def ratio(one: float, other: float) -> float:
    """`one / other`; nan where the other is 0, as that of a measurement that failed."""
    return one / other if other else float("nan")


def _any_failed(values: Iterable[float]) -> bool:
    """Whether there is a nan, of which no order can be had."""
    return any(map(math.isnan, values))


def _commit() -> str:
    try:
        done = subprocess.run(
            ["git", "rev-parse", "--short=12", "HEAD"], cwd=_ROOT, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):  # no git, no repository, or no commit yet
        return "unknown"
    return done.stdout.strip()
