"""The supervisor's view of the portal: started, started again, and no descriptor kept of one that could not be."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import sys
from collections.abc import Awaitable, Callable
from typing import Any, cast

import msgspec
import pytest

from mpq_supervisor import portal_process
from mpq_supervisor.config import parse
from mpq_supervisor.feed import Feed
from mpq_supervisor.plan import make_plan
from mpq_supervisor.portal_process import PortalProcess
from mpq_worker.contract import ExitCode
from tests.unit.test_network import SITE

PLAN = make_plan(parse(SITE + "\n[portal]\n"))
READS = (sys.executable, "-c", "import socket, sys; socket.socket(fileno=int(sys.argv[1])).recv(1)")
WAITS = (sys.executable, "-c", "import sys; sys.stdin.close(); import time; time.sleep(60)")


class FakeFeed:
    def open(self, channel: socket.socket, setup: object) -> None:
        self.channel = channel

    def close_channel(self) -> None:
        self.channel.close()


class Portal:
    """The process, and what became of it."""

    def __init__(self) -> None:
        self.pids: list[int | None] = []
        self.orders: list[socket.socket] = []
        self.changed = asyncio.Event()
        self.process = PortalProcess(cast(Feed, FakeFeed()), self.orders.append, self.born)

    def born(self, pid: int | None) -> None:
        self.pids.append(pid)
        self.changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    async def end(self) -> None:
        self.process._kill()
        await self.process.close()
        for orders in self.orders:
            orders.close()


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(portal_process, "PAUSE", (0.02, 0.02))
    monkeypatch.setattr(portal_process, "CLOSE_TIMEOUT", 0.05)
    monkeypatch.setattr(portal_process, "COMMAND", WAITS)


def run(scene: Callable[[Portal], Awaitable[None]]) -> None:
    async def play() -> None:
        portal = Portal()
        try:
            await scene(portal)
        finally:
            await portal.end()

    asyncio.run(play())


@pytest.mark.parametrize("lacks", ["mpq_worker.channel.socket.socketpair", "subprocess.Popen", "os.pidfd_open"])
def test_what_the_host_cannot_give_is_asked_for_again(monkeypatch: pytest.MonkeyPatch, lacks: str) -> None:
    async def scene(portal: Portal) -> None:
        refused = 0

        def refuse(*_: Any, **__: Any) -> Any:
            nonlocal refused
            refused += 1
            portal.changed.set()
            raise OSError(errno.EMFILE, "Too many open files")

        portal.process.configure(PLAN)
        assert portal.process.pid is not None
        before = descriptors()
        with monkeypatch.context() as patch:
            patch.setattr(lacks, refuse)
            portal.process._kill()
            await portal.until(lambda: refused >= 3)
            portal.orders.pop().close()
            assert portal.pids[1:] == [None]
        await portal.until(lambda: portal.process.pid is not None)
        assert descriptors() == before

    run(scene)


def test_one_that_ended_for_good_is_started_by_the_next_reload(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene(portal: Portal) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(portal_process, "COMMAND", (sys.executable, "-c", f"raise SystemExit({ExitCode.CONFIG:d})"))
            portal.process.configure(PLAN)
            await portal.until(lambda: portal.process.pid is None)
        portal.process.configure(PLAN)
        assert portal.process.pid is not None

    run(scene)


def test_a_reload_leaves_one_that_runs_alone() -> None:
    async def scene(portal: Portal) -> None:
        portal.process.configure(PLAN)
        portal.process.configure(PLAN)
        other = msgspec.structs.replace(PLAN, name="other")
        pid = portal.process.pid
        assert portal.pids == [pid]
        portal.process.configure(other)
        await portal.until(lambda: portal.process.pid not in (None, pid))

    run(scene)


def test_one_that_a_reload_replaces_ends_by_itself_and_that_is_no_fault(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(portal_process, "COMMAND", READS)
    monkeypatch.setattr(portal_process, "CLOSE_TIMEOUT", 60.0)
    monkeypatch.setattr(portal_process, "PAUSE", (60.0, 60.0))

    async def scene(portal: Portal) -> None:
        portal.process.configure(PLAN)
        pid = portal.process.pid
        portal.process.configure(msgspec.structs.replace(PLAN, name="other"))
        portal.process.configure(msgspec.structs.replace(PLAN, name="third"))
        await portal.until(lambda: portal.process.pid not in (None, pid))
        assert len(portal.pids) == 3

    with caplog.at_level(logging.INFO):
        run(scene)
    assert not caplog.records
