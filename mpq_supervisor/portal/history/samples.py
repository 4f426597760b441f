"""What is recorded each second: a row per tunnel and one per class, from what the feed told. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from statistics import fmean
from typing import NamedTuple

import msgspec

from mpq_supervisor.events import Marks
from mpq_supervisor.life import SERVING
from mpq_supervisor.life import State as Life
from mpq_supervisor.portal.messages import Line
from mpq_supervisor.portal.state import State, Tunnel


class Row(NamedTuple):
    """One series in one second: see `layout` for the units. `counted` is False while somebody has it stopped."""

    series: str
    kind: str
    wan: str
    traffic_class: str
    up: bool
    counted: bool
    rtt: int | None
    jitter: int | None
    loss_tx: int | None
    loss_rx: int | None
    bytes_in: int
    bytes_out: int
    drops: int


class Event(msgspec.Struct, frozen=True):
    """What happened at `t` (Unix time). `level` as in `logging`, `kind` an `events.Kind`; `id` once it is stored."""

    t: float
    kind: str
    level: int
    text: str
    tunnel: str = ""
    wan: str = ""
    traffic_class: str = msgspec.field(default="", name="class")
    reason: str = ""
    id: int = 0


def event_of(line: Line, marks: Marks) -> Event:
    """A line of the log that is about something."""
    return Event(
        line.at, marks.kind, line.level, line.text, marks.tunnel, marks.wan, marks.traffic_class, marks.reason
    )


class Batch(NamedTuple):
    """All that is recorded of one second."""

    t: int
    rows: tuple[Row, ...]
    events: tuple[Event, ...]


class Sampler:
    """Keeps what counters were, since only their growth is recorded."""

    def __init__(self) -> None:
        self._before: dict[str, dict[str, float]] = {}

    def rows(self, state: State, now: float) -> tuple[Row, ...]:
        """Of every tunnel that was heard of lately, and of the classes they make up; `now` is monotonic."""
        fresh = {name: tunnel for name, tunnel in state.tunnels.items() if tunnel.fresh(now)}
        rows = [self._row(name, tunnel) for name, tunnel in fresh.items()]
        self._before = {name: self._before[name] for name in fresh}
        classes = dict.fromkeys(row.traffic_class for row in rows)
        return (*rows, *(_class_row(name, [row for row in rows if row.traffic_class == name]) for name in classes))

    def _row(self, name: str, tunnel: Tunnel) -> Row:
        status, totals = tunnel.status, tunnel.totals
        now = {key: totals[key] for key in ("bytes_in", "bytes_out")}
        now["drops"] = sum(totals.below("drops.").values())
        before = self._before.get(name, now)  # the first second of a recorder counts nothing
        self._before[name] = now
        stats = [path.stats for path in tunnel.paths("")]
        return Row(
            series=name,
            kind="tunnel",
            wan=status.wan,
            traffic_class=status.traffic_class,
            up=status.state in SERVING,
            counted=status.state is not Life.STOPPED,
            rtt=_mean((s.rtt for s in stats), 1e6),
            jitter=_mean((s.jitter for s in stats), 1e6),
            loss_tx=_mean((s.loss_tx for s in stats), 1e6),
            loss_rx=_mean((s.loss_rx for s in stats), 1e6),
            bytes_in=int(now["bytes_in"] - before["bytes_in"]),
            bytes_out=int(now["bytes_out"] - before["bytes_out"]),
            drops=int(now["drops"] - before["drops"]),
        )


def _class_row(name: str, rows: list[Row]) -> Row:
    """A class is up while one of its tunnels is; its path is the mean of those that are."""
    up = [row for row in rows if row.up]
    mean: Callable[[Callable[[Row], int | None]], int | None] = lambda get: _mean(map(get, up), 1)  # noqa: E731 - one expression, beside its uses
    return Row(
        series=name,
        kind="class",
        wan="",
        traffic_class=name,
        up=bool(up),
        counted=any(row.counted for row in rows),
        rtt=mean(lambda row: row.rtt),
        jitter=mean(lambda row: row.jitter),
        loss_tx=mean(lambda row: row.loss_tx),
        loss_rx=mean(lambda row: row.loss_rx),
        bytes_in=sum(row.bytes_in for row in rows),
        bytes_out=sum(row.bytes_out for row in rows),
        drops=sum(row.drops for row in rows),
    )


def _mean(values: Iterable[float | None], unit: float) -> int | None:
    known = [value for value in values if value is not None]
    return round(fmean(known) * unit) if known else None
