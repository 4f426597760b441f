"""Waiting for what others do: look again and again, and give up loudly."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable

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
    fd = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(fd, number)
        if not select.select([fd], [], [], PATIENCE)[0]:
            raise TimeoutError(f"process {pid} survives {number.name}")
    finally:
        os.close(fd)


def pause(seconds: float) -> None:
    """Let time pass, where the time is what is wanted: how long a fault lasts, how often to look."""
    select.select([], [], [], seconds)
