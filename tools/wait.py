"""Waiting for what others do: look again and again, and give up loudly."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

PATIENCE = 15.0
"""Seconds after which what is waited for counts as not happening."""


def until(
    condition: Callable[[], object], what: Callable[[], str] = str, seconds: float = PATIENCE, every: float = 0.02
) -> None:
    """Look `every` so many seconds until it holds. Raises `TimeoutError` with `what()` after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= deadline:
            raise TimeoutError(f"not within {seconds} s: {what()}")
        pause(every)


class Held:
    """A process that was alive, or not yet reaped, when it was looked up; `pidfd` can mean no other one."""

    def __init__(self, pid: int) -> None:
        """Raises `ProcessLookupError` if it is gone."""
        self.pid = pid
        self.pidfd = os.pidfd_open(pid)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.close()

    @property
    def ended(self) -> bool:
        """Whether it is dead, and perhaps not yet reaped."""
        return self._dies_within(0.0)

    def send(self, number: signal.Signals) -> None:
        """Send a signal; it comes to nothing where the process has ended."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, number)

    def wait_end(self) -> None:
        """Return when it is dead. Raises `TimeoutError` if it goes on living."""
        if not self._dies_within(PATIENCE):
            raise TimeoutError(f"process {self.pid} goes on living")

    def close(self) -> None:
        """Let go of it."""
        os.close(self.pidfd)

    def _dies_within(self, seconds: float) -> bool:
        return bool(select.select([self.pidfd], [], [], seconds)[0])


def end(pid: int, number: signal.Signals = signal.SIGKILL) -> None:
    """Send a deadly signal and wait for the death. Raises `TimeoutError` if it does not come, `ProcessLookupError`
    where there is no such process."""
    with Held(pid) as held:
        held.send(number)
        held.wait_end()


def pause(seconds: float) -> None:
    """Let time pass, where the time is what is wanted: how long a fault lasts, how often to look."""
    select.select([], [], [], seconds)
