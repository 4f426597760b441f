"""A series as text, for a terminal or for programs. Pure."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from datetime import datetime

import msgspec

from mpq_supervisor.portal.history.query import Point, Series
from mpq_supervisor.portal.history.samples import Event
from mpq_supervisor.printable import printable

HEIGHT = 4
MAX_EVENTS = 30
_BLOCKS = " ▁▂▃▄▅▆▇█"


def chart(series: Series, events: Sequence[Event], since: int, until: int) -> str:
    """What a person wants to see of it; a column is `series.step` seconds, blank where nothing was recorded."""
    begin = since // series.step * series.step
    columns: list[Point | None] = [None] * max(1, -(-(until - begin) // series.step))
    for point in series.points:
        columns[min((point.t - begin) // series.step, len(columns) - 1)] = point
    lines = [f"{series.name}, a column is {series.step} s"]
    for title, unit, scale, value in _QUANTITIES:
        lines += _plot(title, unit, [None if p is None or (v := value(p)) is None else v * scale for p in columns])
    lines += [f"{'':>12} {_clock(since)}{_clock(until):>{max(1, len(columns) - len(_clock(since)))}}"]
    if len(events) > MAX_EVENTS:
        lines.append(f"{len(events) - MAX_EVENTS} earlier events are not shown (--json has all)")
    shown = events[-MAX_EVENTS:]
    lines += [f"{_clock(event.t)}  {printable(event.kind):<10}  {printable(event.text)}" for event in shown]
    return "\n".join(lines)


def table(series: Series) -> str:
    """CSV with a head; times are Unix seconds."""
    out = io.StringIO()
    names = Point.__struct_fields__
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([getattr(point, name) for name in names] for point in series.points)
    return out.getvalue()


def document(series: Series, events: Sequence[Event]) -> bytes:
    """JSON: `series` and `events`."""
    return msgspec.json.encode({"series": series, "events": events}) + b"\n"


_QUANTITIES: tuple[tuple[str, str, float, Callable[[Point], float | None]], ...] = (
    ("up", "%", 100, lambda point: point.up),
    ("RTT", "ms", 1e3, lambda point: point.rtt),
    ("loss sent", "%", 100, lambda point: point.loss_tx),
    ("loss rcvd", "%", 100, lambda point: point.loss_rx),
    ("in", "Mbit/s", 8e-6, lambda point: point.bytes_in / point.seconds if point.seconds else None),
    ("out", "Mbit/s", 8e-6, lambda point: point.bytes_out / point.seconds if point.seconds else None),
)


def _plot(title: str, unit: str, values: list[float | None]) -> list[str]:
    known = [value for value in values if value is not None]
    if not known:
        return [f"{title:>12} nothing recorded"]
    top = max(known) or 1.0
    heights = [None if value is None else max(1, round(value / top * HEIGHT * 8)) for value in values]
    rows = []
    for row in range(HEIGHT - 1, -1, -1):
        label = title if row == HEIGHT - 1 else f"{max(known):.4g} {unit}" if row == HEIGHT - 2 else ""
        cells = (" " if h is None else _BLOCKS[min(8, max(0, h - 8 * row))] for h in heights)
        rows.append(f"{label:>12} {''.join(cells)}".rstrip())
    return rows


def _clock(t: float) -> str:
    return datetime.fromtimestamp(t).astimezone().strftime("%m-%d %H:%M:%S")
