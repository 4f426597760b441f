"""Records in a thread of its own, so that a slow disk holds up nobody; what the disk does not take is counted.

loop ─▶ a bounded queue ─▶ thread ─▶ Store
"""

from __future__ import annotations

import logging
import queue
import sqlite3
import threading
from pathlib import Path

from mpq_supervisor.events import Kind, marks
from mpq_supervisor.portal.history.samples import Batch, Event
from mpq_supervisor.portal.history.store import FILE_NAME, Store

MAX_BATCHES = 120
"""Seconds that may wait for the disk."""
_CLOSE_TIMEOUT = 1.0

log = logging.getLogger(__name__)


class Recorder:
    """`lost` counts seconds that are not recorded, `bytes` is the size of the file."""

    def __init__(self, directory: Path, megabytes: int) -> None:
        self._directory = directory
        self._megabytes = megabytes
        self._queue: queue.Queue[Batch | None] = queue.Queue(MAX_BATCHES)
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._store: Store | None = None
        self._gap: tuple[int, int] | None = None  # first and last second that could not be written
        self._removed = False  # whether the file was, and its successor does not tell yet
        self.lost = 0
        self.bytes = 0

    def start(self) -> None:
        """Begins to record."""
        self._thread.start()

    def put(self, batch: Batch) -> None:
        """One second; never waits."""
        try:
            self._queue.put_nowait(batch)
        except queue.Full:
            self.lost += 1

    def close(self) -> None:
        """Writes what waits, for a second at most."""
        try:
            self._queue.put_nowait(None)
        except queue.Full:
            return
        self._thread.join(_CLOSE_TIMEOUT)

    # ------------------------------------------------------------ in the thread

    def _run(self) -> None:
        try:
            self._store = Store(self._directory, self._megabytes)  # so that there is a file to be read
        except (sqlite3.Error, OSError) as error:
            log.debug("history: %s", error)  # the first second will tell
        while (batch := self._queue.get()) is not None:
            self.record(batch)
        if self._store is not None:
            self._store.close()

    def record(self, batch: Batch) -> None:
        """One second, here and now."""
        try:
            try:
                self._write(batch)
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_FULL or self._store is None:
                    raise
                self._store.trim()
                self._write(batch)
        except (sqlite3.Error, OSError) as error:
            self._fail(batch, error)

    def _write(self, batch: Batch) -> None:
        if self._store is not None and not self._store.in_place():
            self._begin_anew()
        if self._store is None:
            self._store = Store(self._directory, self._megabytes)
        events = batch.events if self._gap is None else (*batch.events, self._gap_event(batch.t, *self._gap))
        if self._removed:
            events = (_event(batch.t, "the file of what was before was removed", "removed"), *events)
        self._store.add(batch._replace(events=events))
        self.bytes = self._store.bytes()
        self._removed = False
        if self._gap is not None:
            log.warning("history: goes on", extra=marks(Kind.HISTORY))
            self._gap = None

    def _fail(self, batch: Batch, error: sqlite3.Error | OSError) -> None:
        self.lost += 1
        if self._gap is None:
            log.error("history: %s; the tunnels go on without it", error, extra=marks(Kind.HISTORY))
        self._gap = (self._gap[0] if self._gap else batch.t, batch.t)
        if getattr(error, "sqlite_errorcode", 0) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            self._set_aside()

    def _begin_anew(self) -> None:
        """Somebody has removed the file, or put another in its place: nobody would read what is written there."""
        assert self._store is not None
        log.error("history: %s was removed; another is begun", self._directory / FILE_NAME, extra=marks(Kind.HISTORY))
        self._store.close()
        self._store, self._removed = None, True

    def _set_aside(self) -> None:
        """A damaged file is kept for whoever can mend it; a new one is begun."""
        if self._store is not None:
            self._store.close()
            self._store = None
        path = self._directory / FILE_NAME
        try:
            path.replace(path.with_suffix(".damaged"))
            for suffix in ("-wal", "-shm"):
                path.with_name(path.name + suffix).unlink(missing_ok=True)
        except OSError as error:
            log.error("history: %s: %s", path, error.strerror)

    def _gap_event(self, t: int, first: int, last: int) -> Event:
        return _event(t, f"nothing is recorded of {last - first + 1} s", "gap")


def _event(t: int, text: str, reason: str) -> Event:
    return Event(t, Kind.HISTORY, logging.WARNING, text, reason=reason)
