"""Writes the history: one transaction per second, so that a kill at any moment costs what was not committed only.

Batch ─▶ s1 ─▶ (every 10 s) s10 ─▶ (every 5 min) s300, days ─▶ (every minute) prune
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby
from operator import itemgetter
from pathlib import Path

from mpq_supervisor.events import Kind
from mpq_supervisor.portal.history.layout import (
    ADDED,
    DAY,
    DDL,
    KEEP_DAYS,
    LEVELS,
    MAX_EVENTS,
    MERGE,
    MINUTES,
    SECONDS,
    TENS,
    Level,
)
from mpq_supervisor.portal.history.samples import Batch, Event, Row
from mpq_supervisor.portal.history.sketch import Sketch

FILE_NAME = "history.db"
PRUNE_INTERVAL = 60
PRUNE_PACE = 10
"""Times the time that passed: as far the oldest samples may be cut, however far the clock has jumped."""
_CLOCK_SLACK = 2
_CACHE_KIB = 2048


class Store:
    """The file, for its one writer. Every method may raise sqlite3.Error, and then nothing of it was written."""

    def __init__(self, directory: Path, megabytes: int) -> None:
        """Opens or makes it and begins a run; what the last run left is rolled up."""
        self._path = directory / FILE_NAME
        self._database = sqlite3.connect(self._path, isolation_level=None)
        try:
            self._open(megabytes)
        except sqlite3.Error:
            self._database.close()
            raise

    def _open(self, megabytes: int) -> None:
        self._database.executescript(DDL)
        for pragma in (
            "synchronous = NORMAL",
            f"cache_size = -{_CACHE_KIB}",
            "journal_size_limit = 8000000",
            f"max_page_count = {megabytes * 1_000_000 // self._number('PRAGMA page_size')}",
        ):
            self._database.execute(f"PRAGMA {pragma}")
        self._series = {
            name: (number, wan, traffic_class)
            for number, name, wan, traffic_class in self._database.execute("SELECT id, name, wan, class FROM series")
        }
        self._last = 0
        self._pruned_at = 0
        with self._transaction():
            self._begin_run()
        self._file = _identity(self._path)

    def close(self) -> None:
        """Ends it."""
        self._database.close()

    def in_place(self) -> bool:
        """Whether its file is the one that others find there. Raises OSError where that cannot be known."""
        return self._file == _identity(self._path)

    def add(self, batch: Batch) -> None:
        """One second; what comes twice in a run is added up, what another run had is kept beside it."""
        with self._transaction():
            if batch.t < self._last - _CLOCK_SLACK:
                text = f"the clock was set back by {self._last - batch.t} s"
                self._add_event(Event(batch.t, "history", 30, text, reason="clock"))
                self._begin_run()
            if self._last == 0:
                self._begin_rolling(batch.t)
            t = self._last = max(batch.t, self._last)
            for row in batch.rows:
                self._add_row(t, row)
            for event in batch.events:
                self._add_event(event)
            self._roll(t)
            if abs(t - self._pruned_at) >= PRUNE_INTERVAL:
                self._prune(t)

    def trim(self) -> None:
        """Gives room: the oldest tenth of each level, and of the most frequent kind of events. For a full disk, or a
        file at its limit."""
        with self._transaction():
            for level in LEVELS:
                for (series,) in self._database.execute("SELECT id FROM series").fetchall():
                    span = self._database.execute(
                        f"SELECT MIN(t), MAX(t) FROM {level.table} WHERE series = ?", (series,)
                    ).fetchone()
                    if span[0] is not None:
                        self._cut(level, series, span[0] + (span[1] - span[0]) // 10 + 1)
            most = self._database.execute("SELECT kind, COUNT(*) FROM events GROUP BY 1 ORDER BY 2 DESC").fetchone()
            if most is not None:
                self._keep_newest(most[0], most[1] * 9 // 10)

    def bytes(self) -> int:
        """What the file takes of the disk, without its write-ahead log."""
        return self._number("PRAGMA page_count") * self._number("PRAGMA page_size")

    # ------------------------------------------------------------ helpers

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._database.execute("BEGIN IMMEDIATE")
        before = self._last, self._pruned_at, dict(self._series)
        try:
            yield
            self._database.execute("COMMIT")
        except BaseException:
            self._last, self._pruned_at, self._series = before
            if self._database.in_transaction:  # some errors, a full disk among them, have rolled it back already
                self._database.execute("ROLLBACK")
            raise

    def _begin_run(self) -> None:
        last = self._meta("run")
        for finer, coarser in ((SECONDS, TENS), (TENS, MINUTES)):
            self._roll_up(finer, coarser, last, self._meta(coarser.table), 1 << 40)
        self._set_meta("run", last + 1)
        self._last = 0

    def _begin_rolling(self, t: int) -> None:
        for level in (TENS, MINUTES):
            self._set_meta(level.table, t // level.step * level.step)

    def _roll(self, t: int) -> None:
        run = self._meta("run")
        for finer, coarser in ((SECONDS, TENS), (TENS, MINUTES)):
            begin, end = self._meta(coarser.table), t // coarser.step * coarser.step
            if end > begin:
                self._roll_up(finer, coarser, run, begin, end)
                self._set_meta(coarser.table, end)

    def _roll_up(self, finer: Level, coarser: Level, run: int, begin: int, end: int) -> None:
        for number, _, _ in self._series.values():
            self._database.execute(
                f"INSERT OR REPLACE INTO {coarser.table} SELECT series, t / ?1 * ?1, run, {MERGE} FROM {finer.table} "
                "WHERE series = ?2 AND t >= ?3 AND t < ?4 AND run = ?5 GROUP BY t / ?1",
                (coarser.step, number, begin, end, run),
            )
            if coarser is MINUTES:
                self._roll_days(number, run, begin, end)

    def _roll_days(self, series: int, run: int, begin: int, end: int) -> None:
        rows = self._database.execute(
            f"SELECT t / {DAY}, n, up, bytes_in, bytes_out, rtt, loss_tx, loss_rx FROM {SECONDS.table} "
            "WHERE series = ? AND t >= ? AND t < ? AND run = ? ORDER BY t",
            (series, begin, end, run),
        ).fetchall()
        for day, part in groupby(rows, key=itemgetter(0)):
            self._add_to_day(day, series, list(part))

    def _add_to_day(self, day: int, series: int, rows: list[tuple[int | None, ...]]) -> None:
        found = self._database.execute(
            "SELECT seen, up, bytes_in, bytes_out, rtt, loss FROM days WHERE day = ? AND series = ?", (day, series)
        ).fetchone()
        sums = [*(found[:4] if found else (0, 0, 0, 0))]
        rtts, losses = (Sketch.decode(found[4]), Sketch.decode(found[5])) if found else (Sketch(), Sketch())
        for _, *numbers, rtt, loss_tx, loss_rx in rows:
            sums = [total + (number or 0) for total, number in zip(sums, numbers, strict=True)]
            if rtt is not None:
                rtts.add(rtt / 1e6)
            if loss_tx is not None or loss_rx is not None:
                losses.add(max(loss_tx or 0, loss_rx or 0) / 1e6)
        self._database.execute(
            "INSERT OR REPLACE INTO days VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (day, series, *sums, rtts.encode(), losses.encode()),
        )

    def _add_row(self, t: int, row: Row) -> None:
        self._database.execute(
            f"INSERT INTO {SECONDS.table} VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
            + ", ".join(f"{column} = {column} + excluded.{column}" for column in ADDED),
            (
                self._number_of(row),
                t,
                self._meta("run"),
                int(row.counted),
                int(row.up),
                row.rtt,
                row.rtt,
                row.jitter,
                row.loss_tx,
                row.loss_rx,
                row.bytes_in,
                row.bytes_out,
                row.drops,
            ),
        )

    def _add_event(self, event: Event) -> None:
        self._database.execute(
            "INSERT INTO events (t, kind, level, tunnel, wan, class, reason, text) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                event.t,
                event.kind,
                event.level,
                event.tunnel,
                event.wan,
                event.traffic_class,
                event.reason,
                event.text,
            ),
        )

    def _number_of(self, row: Row) -> int:
        known: tuple[int, str, str] | None = self._series.get(row.series)
        if known is None or known[1:] != (row.wan, row.traffic_class):
            (number,) = self._database.execute(
                "INSERT INTO series (name, kind, wan, class) VALUES (?, ?, ?, ?) "
                "ON CONFLICT (name) DO UPDATE SET wan = excluded.wan, class = excluded.class RETURNING id",
                (row.series, row.kind, row.wan, row.traffic_class),
            ).fetchone()
            known = self._series[row.series] = (number, row.wan, row.traffic_class)
        return known[0]

    def _prune(self, t: int) -> None:
        self._pruned_at = t
        for level in LEVELS:
            for (series,) in self._database.execute("SELECT id FROM series").fetchall():
                oldest = self._number(f"SELECT MIN(t) FROM {level.table} WHERE series = {series}")
                pace = oldest + PRUNE_PACE * max(PRUNE_INTERVAL, level.step)
                self._cut(level, series, min(t - level.keep, pace))
        oldest_day = self._number("SELECT MIN(day) FROM days")
        self._database.execute("DELETE FROM days WHERE day < ?", (min(t // DAY - KEEP_DAYS, oldest_day + 1),))
        for kind in Kind:
            self._keep_newest(kind, MAX_EVENTS)

    def _keep_newest(self, kind: str, count: int) -> None:
        self._database.execute(
            "DELETE FROM events WHERE kind = ?1 AND id <= "
            "(SELECT id FROM events WHERE kind = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)",
            (kind, count),
        )

    def _cut(self, level: Level, series: int, before: int) -> None:
        self._database.execute(f"DELETE FROM {level.table} WHERE series = ? AND t < ?", (series, before))

    def _meta(self, key: str) -> int:
        return self._number(f"SELECT value FROM meta WHERE key = '{key}'")

    def _set_meta(self, key: str, value: int) -> None:
        self._database.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    def _number(self, question: str) -> int:
        found = self._database.execute(question).fetchone()
        return 0 if found is None or found[0] is None else int(found[0])


def _identity(path: Path) -> tuple[int, int] | None:
    """Of the file there, None where there is none."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino
