"""What a worker uses of its host, as far as it may look: it can open files for reading, but list no directory."""

from __future__ import annotations

import os
import time
from pathlib import Path

from mpq_worker.isolation import MAX_DESCRIPTORS

INTERVAL = 10.0
"""Seconds between two looks at what costs more than a clock: memory and descriptors."""


class Usage:
    """Of the calling process."""

    def __init__(self) -> None:
        self._due = 0.0
        self._pss = self._descriptors = 0

    def look(self, now: float) -> dict[str, float]:
        """The fields `pss`, `descriptors` and `cpu` of a `Report`."""
        if now >= self._due:
            self._due, self._pss, self._descriptors = now + INTERVAL, own_pss(), own_descriptors()
        return {"pss": self._pss, "descriptors": self._descriptors, "cpu": time.process_time()}


def own_pss() -> int:
    """This process's proportional set size in bytes, from /proc/self/smaps_rollup."""
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def own_descriptors() -> int:
    """How many descriptors are open, of the `MAX_DESCRIPTORS` that a worker may have: each is asked."""
    return sum(map(_is_open, range(MAX_DESCRIPTORS)))


def _is_open(fd: int) -> bool:
    try:
        os.get_inheritable(fd)
    except OSError:
        return False
    return True
