"""Logging: to the journal, with fields, when stderr is the journal; otherwise to stderr, with the time.

line ─▶ Bounded: so many of each kind ─▶ JournalHandler ─▶ journald, or as text to stderr where it is not there
                                      └▶ stderr
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Mapping

from mpq_supervisor.events import MESSAGE_ID, Marks
from mpq_supervisor.journald import Journal
from mpq_supervisor.printable import printable
from mpq_supervisor.throttle import Throttle

BURST = 200.0
PER_SECOND = 20.0
"""Lines of one kind; what a whole hub says when all of it restarts is within them."""
IDENTIFIER = "mpq-supervisor"
_PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}


class Record(logging.LogRecord):
    """A line that stays one, whatever the names and reasons in it are made of: many come from others."""

    def getMessage(self) -> str:
        """The text, printable."""
        return printable(super().getMessage())


class PrefixFormatter(logging.Formatter):
    """sd-daemon(3): `<N>` before every line."""

    def format(self, record: logging.LogRecord) -> str:
        prefix = f"<{_priority(record)}>"
        return "\n".join(prefix + line for line in super().format(record).splitlines())


class JournalHandler(logging.Handler):
    """Entries with fields; `fallback` gets what journald cannot have."""

    def __init__(self, journal: Journal, fallback: logging.Handler) -> None:
        super().__init__()
        self._journal = journal
        self._fallback = fallback
        self._lost = 0

    def emit(self, record: logging.LogRecord) -> None:
        """A line of the log; lost, and counted, while journald takes none."""
        try:
            self._journal.send(fields(record, self.format(record)))
            if self._lost:
                lost, self._lost = self._lost, 0
                self.handle(_note(logging.WARNING, f"{lost} lines before it lost: the journal did not take them"))
        except BlockingIOError:
            self._lost += 1
        except OSError:
            self._fallback.handle(record)

    def close(self) -> None:
        """No more of it."""
        self._journal.close()
        super().close()


class Bounded(logging.Handler):
    """Hands on to `target` so many lines of each kind, and tells how many it left out."""

    def __init__(self, target: logging.Handler) -> None:
        super().__init__()
        self._target = target
        self._throttles: dict[str, Throttle] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """A line of the log."""
        about: Marks | None = getattr(record, "marks", None)
        kind = about.kind if about else ""
        throttle = self._throttles.setdefault(kind, Throttle(BURST, PER_SECOND))
        left_out = throttle.admit(time.monotonic())
        if left_out:
            self._tell(kind, left_out)
        if left_out is not None:
            self._target.handle(record)

    def close(self) -> None:
        """Tells of what was left out last."""
        for kind, throttle in self._throttles.items():
            if throttle.suppressed:
                self._tell(kind, throttle.suppressed)
        self._throttles = {}
        super().close()

    def _tell(self, kind: str, count: int) -> None:
        self._target.handle(_note(logging.WARNING, f"{count} lines{f' of kind {kind}' if kind else ''} left out"))


def set_up(environment: Mapping[str, str] = os.environ) -> None:
    """Configures the root logger."""
    text = logging.StreamHandler()
    target: logging.Handler = text
    if is_journal(environment.get("JOURNAL_STREAM", ""), sys.stderr.fileno()):
        text.setFormatter(PrefixFormatter("%(message)s"))
        target = JournalHandler(Journal(), text)
    else:
        text.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s"))
    logging.setLogRecordFactory(Record)
    logging.basicConfig(level=logging.INFO, handlers=[Bounded(target)], force=True)


def is_journal(stream: str, fd: int) -> bool:
    """Whether JOURNAL_STREAM (device:inode, systemd.exec(5)) means this descriptor."""
    status = os.fstat(fd)
    return stream == f"{status.st_dev}:{status.st_ino}"


def fields(record: logging.LogRecord, text: str) -> dict[str, str]:
    """What the journal gets of a line: systemd.journal-fields(7), and what it is about; empty fields are left out."""
    found = {"MESSAGE": text, "PRIORITY": str(_priority(record)), "SYSLOG_IDENTIFIER": IDENTIFIER}
    about: Marks | None = getattr(record, "marks", None)
    if about is not None:
        found |= {
            "MESSAGE_ID": MESSAGE_ID[about.kind],
            "MPQ_KIND": about.kind,
            "MPQ_TUNNEL": about.tunnel,
            "MPQ_WAN": about.wan,
            "MPQ_CLASS": about.traffic_class,
            "MPQ_REASON": about.reason,
        }
    return {name: value for name, value in found.items() if value}


def _priority(record: logging.LogRecord) -> int:
    return _PRIORITIES.get(record.levelno, 6)


def _note(level: int, text: str) -> logging.LogRecord:
    return logging.makeLogRecord({"levelno": level, "levelname": logging.getLevelName(level), "msg": text})
