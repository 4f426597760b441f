"""Counting packets on an interface with tcpdump."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Callable
from types import TracebackType
from typing import IO, Any, Self, cast

# The kernel's own count, and so independent of how many tcpdump had read when it was told to stop.
_RECEIVED = re.compile(r"^(\d+) packets? received by filter", re.MULTILINE)


class Capture:
    """A tcpdump that listens when the constructor returns. `execute` starts a command where it shall listen.

    `with` stops it at the end; `packets` is valid then. Raises `RuntimeError` if tcpdump does not start (a bad
    filter).
    """

    def __init__(self, execute: Callable[..., subprocess.Popen[Any]], device: str, expression: str) -> None:
        argv = ["tcpdump", "--immediate-mode", "-Z", "root", "-np", "-i", device, "-w", "/dev/null", expression]
        self._process = execute(argv, stderr=subprocess.PIPE, text=True)
        self._stderr = cast(IO[str], self._process.stderr)
        self.packets = 0
        said = ""
        while "listening on" not in said:
            line = self._stderr.readline()
            if not line:
                raise RuntimeError(f"tcpdump: {said.strip()}")
            said += line

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> int:
        """End the capture and return the number of packets. May be called again."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            said = self._stderr.read()
            self._process.wait()
            received = _RECEIVED.search(said)
            if not received:
                raise RuntimeError(f"tcpdump: {said.strip()}")
            self.packets = int(received[1])
        return self.packets
