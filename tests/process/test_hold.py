"""Holding a process of the product: nobody is hit who has only got its number, and nothing is lost when it goes."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator

import pytest

from tools.product import Side
from tools.system import System
from tools.wait import Held


@pytest.fixture
def sleepers() -> Iterator[list[subprocess.Popen[bytes]]]:
    processes = [subprocess.Popen(["sleep", "600"]) for _ in range(2)]
    yield processes
    for process in processes:
        process.kill()
        process.wait()


class _Told(System):
    """A system whose status says these pids, one after the other."""

    def __init__(self, *pids: int | None) -> None:
        self.misses = 0
        self._pids = list(pids)

    def _pid(self, side: Side, name: str) -> int | None:
        return self._pids.pop(0)


def test_one_that_went_just_now_is_not_the_one(sleepers: list[subprocess.Popen[bytes]]) -> None:
    gone, there = sleepers
    gone.kill()
    gone.wait()
    system = _Told(gone.pid, None, there.pid, there.pid)
    with system.hold("site", "br2") as held:
        assert held.pid == there.pid
        held.send(signal.SIGKILL)
        held.wait_end()
        assert held.ended
        there.wait()
        held.send(signal.SIGKILL)  # comes to nothing
    assert system.misses == 1


def test_one_that_was_replaced_meanwhile_is_not_the_one(sleepers: list[subprocess.Popen[bytes]]) -> None:
    old, new = (process.pid for process in sleepers)
    system = _Told(old, new, new, new)
    with system.hold("site", "br2") as held:
        assert held.pid == new
        assert not held.ended
    assert system.misses == 1


def test_nobody_can_be_held(sleepers: list[subprocess.Popen[bytes]]) -> None:
    sleepers[0].kill()
    sleepers[0].wait()
    with pytest.raises(ProcessLookupError):
        Held(sleepers[0].pid)
