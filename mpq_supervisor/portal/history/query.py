"""Reads the history: samples in the resolution that fits, events, and what a day came to.

Opens the file for reading only, for each question anew: readers keep nobody waiting and hold nothing.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import pairwise
from pathlib import Path
from urllib.parse import quote

import msgspec

from mpq_supervisor.portal.history.layout import DAY, LEVELS, MERGE, Level
from mpq_supervisor.portal.history.samples import Event
from mpq_supervisor.portal.history.sketch import Sketch
from mpq_supervisor.portal.history.store import FILE_NAME

BUSY_TIMEOUT = 2.0


class Point(msgspec.Struct, frozen=True):
    """A series over `seconds` seconds from `t` (Unix time) on. None where nothing was measured.

    `up` is the share of the seconds seen in which it was UP; seconds, ratios 0..1 and bytes as everywhere.
    """

    t: int
    seconds: int  # of `step`, how many were recorded
    up: float | None
    rtt: float | None
    rtt_max: float | None
    jitter: float | None
    loss_tx: float | None
    loss_rx: float | None
    bytes_in: int
    bytes_out: int
    drops: int


class Series(msgspec.Struct, frozen=True):
    """The points of one name, `step` seconds apart; where there is none, nothing was recorded."""

    name: str
    step: int
    points: tuple[Point, ...]


class Volume(msgspec.Struct, frozen=True):
    """What a series came to on a day (UTC). `seen` seconds were recorded, `up` of them UP."""

    day: int  # days since 1970-01-01
    name: str
    kind: str
    wan: str  # that it is of now; empty for a class
    seen: int
    up: int
    bytes_in: int
    bytes_out: int
    rtt: dict[str, float]  # by quantile: p50 p95 p99, seconds
    loss: dict[str, float]


class History:
    """The file in `directory`. Methods raise sqlite3.Error when it cannot be read."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / FILE_NAME

    def names(self) -> list[str]:
        """All series, tunnels and classes."""
        with self._open() as database:
            return [name for (name,) in database.execute("SELECT name FROM series ORDER BY kind DESC, id")]

    def series(self, name: str, since: int, until: int, points: int, now: int) -> Series:
        """A series from `since` to `until` in about `points` points, or as many as there are at Unix time `now`."""
        level, step = resolution(since, until, points, now)
        with self._open() as database:
            rows = database.execute(
                f"SELECT t / :step * :step, {MERGE} FROM ({_samples(level)}) GROUP BY 1",
                {"name": name, "since": since // step * step, "until": until, "step": step},
            ).fetchall()
        return Series(name, step, tuple(_point(*row) for row in rows))

    def events(
        self,
        since: float,
        until: float,
        limit: int = -1,
        kind: str = "",
        tunnel: str = "",
        name: str = "",
        before: int = 1 << 62,
    ) -> list[Event]:
        """The latest `limit` events of that time (-1: all), oldest first; those with an `id` below `before` only.

        Of a series, by its `name`, are those of its tunnels and of their WANs.
        """
        with self._open() as database:
            rows = database.execute(
                "SELECT t, kind, level, text, tunnel, wan, class, reason, id FROM events "
                "WHERE t >= :since AND t < :until AND id < :before AND :kind IN ('', kind) "
                "AND :tunnel IN ('', tunnel) AND (:name IN ('', tunnel, class) OR tunnel = '' AND wan IN "
                "(SELECT wan FROM series WHERE wan != '' AND :name IN (name, class))) ORDER BY id DESC LIMIT :limit",
                {
                    "since": since,
                    "until": until,
                    "before": before,
                    "kind": kind,
                    "tunnel": tunnel,
                    "name": name,
                    "limit": limit,
                },
            ).fetchall()
        return [Event(*row) for row in reversed(rows)]

    def days(self, first: int, last: int) -> list[Volume]:
        """Every series on each of these days, both included."""
        with self._open() as database:
            rows = database.execute(
                "SELECT day, name, kind, wan, seen, up, bytes_in, bytes_out, rtt, loss FROM days "
                "JOIN series ON series.id = days.series WHERE day BETWEEN ? AND ? ORDER BY day, kind, series.id",
                (first, last),
            ).fetchall()
        return [_volume(*row) for row in rows]

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        uri = f"file:{quote(bytes(self._path))}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT)) as database:
            yield database


def resolution(since: int, until: int, points: int, now: int) -> tuple[Level, int]:
    """The coarsest level that gives `points` points, or the finest that reaches back so far; and the step, a
    multiple of the level's. What is older than all that is kept, or has yet to come, takes no points."""
    span = max(1, min(until, now) - max(since, now - LEVELS[-1].keep))
    reaching = [level for level in LEVELS if level.keep >= now - since] or [LEVELS[-1]]
    fitting = [level for level in reaching if span / level.step >= points]
    level = fitting[-1] if fitting else reaching[0]
    return level, level.step * max(1, round(span / level.step / points))


def _samples(level: Level) -> str:
    """Those of a level, and for the time that it has not come to yet those of the finer ones: until then only the
    present run has any."""
    wanted = "series = (SELECT id FROM series WHERE name = :name) AND t >= :since AND t < :until"
    parts = [f"SELECT * FROM {level.table} WHERE {wanted}"]
    for finer, coarser in pairwise(LEVELS[: LEVELS.index(level) + 1]):
        parts.append(
            f"SELECT * FROM {finer.table} WHERE {wanted} AND run = (SELECT value FROM meta WHERE key = 'run') "
            f"AND t >= (SELECT value FROM meta WHERE key = '{coarser.table}')"
        )
    return " UNION ALL ".join(parts)


def day_of(t: float) -> int:
    """The day (UTC) of a Unix time."""
    return int(t) // DAY


def _point(t: int, n: int, up: int, *values: int | None) -> Point:
    rtt, rtt_max, jitter, loss_tx, loss_rx = (None if value is None else value / 1e6 for value in values[:5])
    bytes_in, bytes_out, drops = (value or 0 for value in values[5:])
    return Point(t, n, up / n if n else None, rtt, rtt_max, jitter, loss_tx, loss_rx, bytes_in, bytes_out, drops)


def _volume(
    day: int,
    name: str,
    kind: str,
    wan: str,
    seen: int,
    up: int,
    bytes_in: int,
    bytes_out: int,
    rtt: bytes,
    loss: bytes,
) -> Volume:
    return Volume(day, name, kind, wan, seen, up, bytes_in, bytes_out, _quantiles(rtt), _quantiles(loss))


def _quantiles(data: bytes) -> dict[str, float]:
    sketch = Sketch.decode(data)
    found = {f"p{percent}": sketch.quantile(percent / 100) for percent in (50, 95, 99)}
    return {name: value for name, value in found.items() if value is not None}
