"""A wall clock for the product of one lab, which can be set without touching the machine's (`clock.c`)."""

from __future__ import annotations

import struct
from pathlib import Path

LIBRARY = Path("build/clock.so")


class Clock:
    """Right until `set`. `environment` is what a process, and all that it starts, must have to go by it."""

    def __init__(self, path: Path) -> None:
        if not LIBRARY.exists():
            raise RuntimeError(f"{LIBRARY} is missing: run `make {LIBRARY}`")
        self._path = path
        self.set(0.0)
        path.chmod(0o644)
        self.environment = {"LD_PRELOAD": str(LIBRARY.resolve()), "MPQ_CLOCK": str(path)}

    def set(self, seconds: float) -> None:
        """How wrong the clock is from now on. In place: the file is mapped."""
        mode = "r+b" if self._path.exists() else "wb"
        with self._path.open(mode, buffering=0) as file:
            file.write(struct.pack("=q", round(seconds * 1e9)))
