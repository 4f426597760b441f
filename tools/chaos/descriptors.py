"""A process that runs out of descriptors."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

import psutil

from tools.wait import pause

_MOMENT = 0.1


@contextmanager
def none_left(pid: int) -> Iterator[None]:
    """Meanwhile a process opens nothing but in the place of what it closes. RLIMIT_NOFILE bounds the number that a
    descriptor gets, not how many there are, and a table has holes. Raises `psutil.NoSuchProcess`, OSError."""
    process = psutil.Process(pid)
    soft, hard = process.rlimit(psutil.RLIMIT_NOFILE)
    process.rlimit(psutil.RLIMIT_NOFILE, (_lowest_unused(pid), hard))
    try:
        yield
    finally:
        process.rlimit(psutil.RLIMIT_NOFILE, (soft, hard))


def _lowest_unused(pid: int) -> int:
    """What is open for a moment only leaves its number unused."""
    before = _numbers(pid)
    pause(_MOMENT)
    lasting = before & _numbers(pid)
    return next(number for number in count() if number not in lasting)


def _numbers(pid: int) -> set[int]:
    return set(map(int, os.listdir(f"/proc/{pid}/fd")))
