"""A writer of the history in a process of its own, killed again and again, on a clock that is set back."""

from __future__ import annotations

import random
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from mpq_supervisor.portal.history.store import FILE_NAME, Store

BEGIN = 1_800_000_000
SPAN = 3000
"""All seconds are of so many: less than the finest samples are kept."""
MAX_SECONDS = 60
"""The most that a writer tells before it is killed."""
_WRITER = """
import sys
from pathlib import Path
from mpq_supervisor.portal.history.samples import Batch, Row
from mpq_supervisor.portal.history.store import Store

store = Store(Path(sys.argv[1]), 16)
names = [f"t{n}" for n in range(int(sys.argv[2]))]
for t in map(int, sys.argv[3:]):
    rows = [Row(name, "tunnel", "w", "critical", True, True, 20000, 1, 0, 0, 1, t % 1000, 0) for name in names]
    store.add(Batch(t, tuple(rows), ()))
    print(t, flush=True)
"""


class Outcome(NamedTuple):
    """`told` are seconds that a writer said were committed, `missing` of them were not found; `beside` were found and
    not told of; `wrong` are sums of the coarser samples that are not those of the finer ones."""

    told: int
    missing: int
    beside: int
    wrong: int
    bytes: int  # with the write-ahead log


def kill_often(directory: Path, kills: int, series: int, seed: int) -> Outcome:
    """SIGKILL for `kills` writers of so many series, each at a random moment."""
    chance, told = random.Random(seed), list[int]()
    for _ in range(kills):
        told += _kill_one(directory, series, _seconds(chance), chance)
    Store(directory, 16).close()  # finishes what the last one left
    size = sum(path.stat().st_size for path in directory.iterdir())
    with closing(sqlite3.connect(directory / FILE_NAME)) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        there = dict(
            database.execute("SELECT t, MIN(n) FROM (SELECT t, SUM(n) n FROM s1 GROUP BY t, series) GROUP BY t")
        )
        sums = [
            database.execute(f"SELECT SUM(n), SUM(bytes_out) FROM {table}").fetchone()
            for table in ("s1", "s10", "s300")
        ]
    missing = sum(max(0, count - there.get(t, 0)) for t, count in Counter(told).items())
    beside = sum(there.values()) - len(told) + missing
    return Outcome(len(told), missing, beside, len(sums) - sums.count(sums[0]), size)


def _seconds(chance: random.Random) -> list[int]:
    """A clock that starts anywhere and is set back twice."""
    begins = [BEGIN + chance.randrange(SPAN) for _ in range(3)]
    return [t + n for t in sorted(begins, reverse=True) for n in range(chance.randrange(10, MAX_SECONDS))]


def _kill_one(directory: Path, series: int, seconds: list[int], chance: random.Random) -> list[int]:
    argv = [sys.executable, "-c", _WRITER, str(directory), str(series), *map(str, seconds)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        told = [int(writer.stdout.readline()) for _ in range(chance.randrange(1, len(seconds)))]
        writer.send_signal(signal.SIGKILL)
        return told + [int(line) for line in writer.stdout if line.endswith("\n")]
