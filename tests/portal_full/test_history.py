"""The history under kills, a full disk and a clock that is set back; and a year of it."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from mpq_supervisor import portal_process
from mpq_supervisor.plan import HostPlan
from mpq_supervisor.portal.history.layout import DAY, MINUTES, TENS
from mpq_supervisor.portal.history.query import History, day_of
from mpq_supervisor.portal.history.samples import Batch, Row
from mpq_supervisor.portal.history.sketch import Sketch
from mpq_supervisor.portal.history.store import FILE_NAME, Store
from mpq_supervisor.schema import Portal as PortalSection
from tests.netns.portals import Portal
from tests.netns.product import System
from tests.process.killed_writer import kill_often
from tests.process.portals import Portals
from tools.chaos.clock import Clock
from tools.product import Side
from tools.results import Results, percentile
from tools.wait import until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: workers get uids of their own")
Run = Callable[[Coroutine[Any, Any, None]], None]
Rows = dict[tuple[int, int, int], tuple[int, ...]]

SHARE = min(1.0, int(os.environ.get("MPQ_SECONDS", "60")) / 60)
"""Of the kills of whole processes: a hundred take five minutes."""
KILLS = 100
PORTAL_KILLS = round(75 * SHARE)
SUPERVISOR_KILLS = round(25 * SHARE)
SERIES = 21
"""18 tunnels and three classes."""
YEAR = 365 * DAY
SET_BACK = (-600.0, -1200.0, -1800.0)
"""Seconds that a clock is wrong by, one after the other: less than the finest samples are kept."""


def committed(directory: Path) -> Rows:
    """The finest samples, by series, second and run."""
    with closing(sqlite3.connect(f"file:{directory / FILE_NAME}?mode=ro", uri=True, timeout=10)) as database:
        found = database.execute("SELECT series, t, run, n, up, bytes_in, bytes_out FROM s1").fetchall()
    return {row[:3]: row[3:] for row in found}


def begun(directory: Path) -> bool:
    """Whether something has been recorded there."""
    try:
        return bool(committed(directory))
    except sqlite3.OperationalError:  # there is no table yet
        return False


async def until_true(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - another process's doings
            await asyncio.sleep(0.05)


@contextmanager
def small_disk(directory: Path) -> Iterator[None]:
    """2 MB, for the portal's uid too."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m,mode=777", "tmpfs", directory], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", directory], check=True)


def fill(path: Path) -> None:
    """Until not a byte more fits."""
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))


def missing(before: Rows, after: Rows) -> int:
    """How many of `before` are not there any more, or less than they were: a second may yet be added to."""
    return sum(key not in after or after[key][0] < row[0] for key, row in before.items())


def test_a_writer_that_is_killed_a_hundred_times(tmp_path: Path, results: Results) -> None:
    outcome = kill_often(tmp_path, KILLS, SERIES, seed=1)
    results.add("history.kills", [KILLS], "of a writer, its clock set back twice each time")
    results.add("history.kills.seconds_committed", [outcome.told], "s")
    results.add("history.kills.seconds_lost", [outcome.missing], "s", target=0)
    results.add("history.kills.wrong_sums", [outcome.wrong], "levels", target=0)
    results.add("history.kills.size", [outcome.bytes / 1e6], "MB", target=16 + 8)
    assert outcome.missing == outcome.wrong == 0


def test_a_portal_that_is_killed(
    run: Run, site_plan: HostPlan, tmp_path: Path, results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(portal_process, "PAUSE", (0.05, 0.1))
    chance = random.Random(2)

    async def body() -> None:
        async with Portals(site_plan, tmp_path) as portals:
            directory, lost, seen = portals.directory / "portal", 0, 0
            await until_true(lambda: begun(directory))
            for _ in range(PORTAL_KILLS):
                begin = len(committed(directory))
                await until_true(lambda begin=begin: len(committed(directory)) > begin)  # type: ignore[misc]  # a lambda's default
                await asyncio.sleep(chance.random())
                pid = portals.portal.pid
                assert pid is not None
                before = committed(directory)
                os.kill(pid, signal.SIGKILL)
                await portals.rig.until(lambda pid=pid: portals.portal.pid not in (pid, None))  # type: ignore[misc]  # a lambda's default
                await portals.until_answering()
                lost += missing(before, committed(directory))
                seen = len(before)
            results.add("history.portal_kills", [PORTAL_KILLS], "of a portal at work")
            results.add("history.portal_kills.samples", [seen], "samples")
            results.add("history.portal_kills.samples_lost", [lost], "samples", target=0)
            assert lost == 0

    run(body())


def test_a_clock_that_is_set_back(
    run: Run, site_plan: HostPlan, tmp_path: Path, results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That of a portal at work, which goes on meanwhile, and once dies on it."""
    clock = Clock(tmp_path / "clock")
    for name, value in clock.environment.items():
        monkeypatch.setenv(name, value)

    async def body() -> None:
        async with Portals(site_plan, tmp_path) as portals:
            directory, lost = portals.directory / "portal", 0
            await until_true(lambda: begun(directory))
            for wrong in SET_BACK:
                before = committed(directory)
                clock.set(wrong)

                def goes_on(before: Rows = before, wrong: float = wrong) -> bool:
                    new = committed(directory).keys() - before.keys()
                    return sum(abs(t - time.time() - wrong) < 60 for _, t, _ in new) > 3 * len(portals.plan.workers)

                await until_true(goes_on)
                lost += missing(before, committed(directory))
            pid = portals.portal.pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            await portals.rig.until(lambda: portals.portal.pid not in (pid, None))
            await portals.until_answering()
            lost += missing(before, committed(directory))
            results.add("history.clock.set_back", [-SET_BACK[-1]], "s")
            results.add("history.clock.samples", [len(committed(directory))], "samples")
            results.add("history.clock.samples_lost", [lost], "samples", target=0)
            assert lost == 0

    run(body())


@pytest.mark.root
def test_a_supervisor_that_is_killed(running: System, portals: dict[Side, Portal], results: Results) -> None:
    """In the lab; the next one adopts the tunnels and starts a portal that goes on with the file."""
    directory, chance, lost = running.lab.directory / "site/portal", random.Random(3), 0
    seen: Rows = {}
    until(lambda: begun(directory))
    for _ in range(SUPERVISOR_KILLS):
        begin = len(committed(directory))
        until(lambda begin=begin: len(committed(directory)) > begin, seconds=60)  # type: ignore[misc]  # a lambda's default
        time.sleep(chance.random())
        seen = committed(directory)
        running.kill("site")
        running.start("site")
        until(portals["site"].answers, seconds=60)
        lost += missing(seen, committed(directory))
    results.add("history.supervisor_kills", [SUPERVISOR_KILLS], "of a supervisor with nine tunnels")
    results.add("history.supervisor_kills.samples", [len(seen)], "samples")
    results.add("history.supervisor_kills.samples_lost", [lost], "samples", target=0)
    assert lost == 0
    assert portals["site"].metrics()["mpq_history_lost_seconds_total"][frozenset()] == 0


@pytest.mark.root
def test_a_full_disk(run: Run, site_plan: HostPlan, tmp_path: Path, results: Results) -> None:
    """A portal at work on a disk of 2 MB that another fills, for some seconds."""

    async def body() -> None:
        portals = Portals(site_plan, tmp_path)
        disk = portals.directory / "portal"
        disk.mkdir()

        async def lost() -> int:
            page = (await portals.get("/metrics")).body.decode()
            (line,) = (text for text in page.splitlines() if text.startswith("mpq_history_lost_seconds_total "))
            return round(float(line.split()[1]))

        async with portals:
            with small_disk(disk):
                pid = portals.portal.pid
                assert pid is not None
                os.kill(pid, signal.SIGKILL)  # the next one is on that disk
                await portals.rig.until(lambda: portals.portal.pid not in (pid, None))
                await portals.until_answering()
                await until_true(lambda: begun(disk))
                fill(disk / "filler")
                async with asyncio.timeout(60):
                    while await lost() < 3:  # noqa: ASYNC110 - another process's doings
                        await asyncio.sleep(0.2)
                assert (await portals.get("/api/v1/health", "")).status == 200
                assert portals.rig.fleet.summary() == "6 UP"
                before = committed(disk)
                (disk / "filler").unlink()
                newest = max(t for _, t, _ in before)
                await until_true(lambda: max(t for _, t, _ in committed(disk)) > newest + 3)
                (gap,) = History(disk).events(0, 2e9, 10, kind="history")
                results.add("history.full_disk.seconds_lost", [await lost()], "s")
                results.add("history.full_disk.samples_lost", [missing(before, committed(disk))], "samples", target=0)
                assert gap.reason == "gap"
                assert missing(before, committed(disk)) == 0

    run(body())


def test_a_year_of_18_tunnels(tmp_path: Path, results: Results) -> None:
    """What a year leaves, written in its order; then an hour is recorded on top, and questions are asked."""
    limit = PortalSection().history_mb
    now = 1_800_000_000 // DAY * DAY + DAY // 2
    names = [f"t{n:02}" for n in range(SERIES)]

    def rows(t: int) -> tuple[Row, ...]:
        rtt, loss, volume = 40_000 + t * 7 % 9000, t % 997, t % 99_991
        return tuple(
            Row(name, "tunnel", "wan4", "bulk", True, True, rtt, 900, loss, None, volume, 1, 0) for name in names
        )

    store = Store(tmp_path, limit)
    store.add(Batch(now - YEAR, rows(now - YEAR), ()))
    store.close()
    _write_past(tmp_path, now)
    store = Store(tmp_path, limit)
    took = []
    for t in range(now, now + 3600):
        begin = time.perf_counter()
        store.add(Batch(t, rows(t), ()))
        took.append(1e3 * (time.perf_counter() - begin))
    size = store.bytes()
    store.close()
    history, end = History(tmp_path), now + 3600
    results.add("history.year.size", [size / 1e6], "MB", target=limit)
    results.add("history.year.second.mean", [fmean(took)], "ms")
    results.add("history.year.second.p99", [percentile(sorted(took), 99)], "ms")
    results.add("history.year.second.max", [max(took)], "ms")

    def ask(name: str, question: Callable[[], int], least: int) -> None:
        times = []
        for _ in range(5):
            begin = time.perf_counter()
            found = question()
            times.append(1e3 * (time.perf_counter() - begin))
            assert found >= least, (name, found)
        results.add(f"history.year.ask_{name}", times, "ms")

    def points(seconds: int) -> Callable[[], int]:
        return lambda: len(history.series("t07", end - seconds, end, 600, end).points)

    ask("hour", points(3600), 600)
    ask("day", points(DAY), 500)
    ask("month", points(30 * DAY), 500)
    ask("year", points(YEAR), 500)
    ask("month_of_indicators", lambda: len(history.days(day_of(end) - 30, day_of(end))), 30 * SERIES)
    ask("year_of_indicators", lambda: len(history.days(day_of(end) - 364, day_of(end))), 364 * SERIES)


def _write_past(directory: Path, now: int) -> None:
    """Coarse samples and days, as the recorder's roll-ups leave them, up to `now`."""
    sketch = Sketch()
    for n in range(3000):
        sketch.add(0.02 + n % 1000 / 1e4)
    blob = sketch.encode()
    insert = "INSERT INTO {} VALUES (?, ?, 1, ?, ?, ?, ?, 900, ?, NULL, ?, ?, 0)"
    with closing(sqlite3.connect(directory / FILE_NAME)) as database, database:
        series = [number for (number,) in database.execute("SELECT id FROM series")]
        for level, first in ((MINUTES, now - YEAR), (TENS, now - TENS.keep)):
            database.executemany(
                insert.format(level.table),
                (
                    (one, t, level.step, level.step, 40_000 + t % 9973, 90_000, t % 997, t * one % 10**9, t % 10**9)
                    for t in range(first // level.step * level.step + level.step, now, level.step)
                    for one in series
                ),
            )
        database.executemany(
            "INSERT OR REPLACE INTO days VALUES (?, ?, 86400, 86390, 1000000, 1000000, ?, ?)",
            ((day, one, blob, blob) for day in range(day_of(now) - 364, day_of(now)) for one in series),
        )
