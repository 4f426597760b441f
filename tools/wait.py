"""Waiting for what others do: look again and again, and give up loudly."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

PATIENCE = 15.0
"""Seconds after which what is waited for counts as not happening."""


def until(condition: Callable[[], object], what: Callable[[], str] = str, seconds: float = PATIENCE) -> None:
    """Look some 50 times a second until it holds. Raises `TimeoutError` with `what()` after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= deadline:
            raise TimeoutError(f"not within {seconds} s: {what()}")
        pause(0.02)


def end(pid: int, number: signal.Signals = signal.SIGKILL) -> None:
    """Send a deadly signal and wait for the death. Raises `TimeoutError` if it does not come."""
    with death_of(pid):
        os.kill(pid, number)


@contextmanager
def death_of(pid: int) -> Iterator[None]:
    """What is done inside is the death of a process: returns when it is dead, whether or not somebody has reaped it.

    Raises `TimeoutError` if it goes on living, `ProcessLookupError` if it is gone already.
    """
    fd = os.pidfd_open(pid)
    try:
        yield
        if not select.select([fd], [], [], PATIENCE)[0]:
            raise TimeoutError(f"process {pid} goes on living")
    finally:
        os.close(fd)


def pause(seconds: float) -> None:
    """Let time pass, where the time is what is wanted: how long a fault lasts, how often to look."""
    select.select([], [], [], seconds)
