"""How the history lies in its SQLite file. Pure.

    series       a tunnel or a class
    s1 s10 s300  samples of 1 s, 10 s and 5 min, kept for an hour, two days and a year
    days         per day (UTC): seconds seen and UP, volume, sketches of RTT and loss, kept for a year
    events       what happened, of each kind the newest
    meta         the run, and how far its samples have been rolled up

A run is the time of one recorder on one clock: it ends with the process, or when the clock is set back. It is part of
each sample's key, so that a second that comes twice overwrites nothing.
"""

from __future__ import annotations

from typing import NamedTuple

HOUR, DAY = 3600, 86_400


class Level(NamedTuple):
    """Samples of `step` seconds, kept for `keep` seconds."""

    table: str
    step: int
    keep: int


SECONDS = Level("s1", 1, HOUR)
TENS = Level("s10", 10, 2 * DAY)
MINUTES = Level("s300", 300, 366 * DAY)
LEVELS = (SECONDS, TENS, MINUTES)
KEEP_DAYS = 366
MAX_EVENTS = 50_000
"""Of each kind: however many notices there are, who ordered what stays."""

_SAMPLES = """
CREATE TABLE IF NOT EXISTS {table} (
    series INTEGER NOT NULL, t INTEGER NOT NULL, run INTEGER NOT NULL,
    n INTEGER NOT NULL, up INTEGER NOT NULL,
    rtt INTEGER, rtt_max INTEGER, jitter INTEGER, loss_tx INTEGER, loss_rx INTEGER,
    bytes_in INTEGER NOT NULL, bytes_out INTEGER NOT NULL, drops INTEGER NOT NULL,
    PRIMARY KEY (series, t, run)
) WITHOUT ROWID;
"""
"""`n` samples of a second, `up` of them UP; microseconds, millionths; bytes and drops are of these seconds."""

DDL = """
PRAGMA journal_mode = WAL;
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS series (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, kind TEXT NOT NULL, wan TEXT NOT NULL, class TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS days (
    day INTEGER NOT NULL, series INTEGER NOT NULL, seen INTEGER NOT NULL, up INTEGER NOT NULL,
    bytes_in INTEGER NOT NULL, bytes_out INTEGER NOT NULL, rtt BLOB NOT NULL, loss BLOB NOT NULL,
    PRIMARY KEY (day, series)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS events (
    id INTEGER PRIMARY KEY, t REAL NOT NULL, kind TEXT NOT NULL, level INTEGER NOT NULL,
    tunnel TEXT NOT NULL, wan TEXT NOT NULL, class TEXT NOT NULL, reason TEXT NOT NULL, text TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS events_t ON events (t);
CREATE INDEX IF NOT EXISTS events_kind ON events (kind);
""" + "".join(_SAMPLES.format(table=level.table) for level in LEVELS)

ADDED = ("n", "up", "bytes_in", "bytes_out", "drops")
MEAN = "CAST(SUM({0} * n) / NULLIF(SUM(CASE WHEN {0} IS NULL THEN 0 ELSE n END), 0) AS INTEGER)"
MERGE = ", ".join(
    (
        "SUM(n)",
        "SUM(up)",
        MEAN.format("rtt"),
        "MAX(rtt_max)",
        *(MEAN.format(column) for column in ("jitter", "loss_tx", "loss_rx")),
        *(f"SUM({column})" for column in ("bytes_in", "bytes_out", "drops")),
    )
)
"""Several samples as one, from `n` on; means are of the seconds in which there was a value."""
