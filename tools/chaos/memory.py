"""A memory cgroup around one end of the product, to run it out of memory. Version 1 or 2 of the hierarchy."""

from __future__ import annotations

import errno
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from tools.wait import Held, until

_V1 = Path("/sys/fs/cgroup/memory")
_V2 = Path("/sys/fs/cgroup")
_SLACK = 2 << 20  # between what is in use and the limit
_EAT = """
import sys, time
print("ready", flush=True)
sys.stdin.read(1)
eaten = []
for _ in range(256):  # 64 MB at most: the kernel gives up file pages first
    eaten.append(b"x" * (256 << 10))
    time.sleep(0.005)
"""


class MemoryGroup:
    """A group named after the lab. Raises OSError where the machine has no memory controller to offer."""

    def __init__(self, name: str) -> None:
        v1 = (_V1 / "memory.limit_in_bytes").exists()
        self._path = (_V1 if v1 else _V2) / name
        self._limit, self._unlimited = ("memory.limit_in_bytes", "-1") if v1 else ("memory.max", "max")
        self._usage = "memory.usage_in_bytes" if v1 else "memory.current"
        self._procs = self._path / "cgroup.procs"
        self._path.mkdir()
        if not (self._path / self._limit).exists():
            self._path.rmdir()
            raise OSError(f"{self._path} has no {self._limit}: the memory controller is not enabled")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        """Needs every process in it to have ended, or to be about to."""
        until(lambda: not self._members(), lambda: f"{self._path}: processes {self._members()}")
        self._path.rmdir()

    def take(self, pid: int) -> None:
        """Have a process and all its descendants in here; what they already have stays accounted elsewhere.

        Raises `psutil.NoSuchProcess` if there is no such process; children of it may come and go meanwhile.
        """
        process = psutil.Process(pid)
        until(lambda: self._take_once(process), lambda: f"{_family(process)} are not all in {self._path}")

    def exhaust(self, victim: Held) -> None:
        """Let somebody in the group want more than there is, until the kernel has killed `victim`, made its first
        choice for that. Raises `TimeoutError` if it does not, `RuntimeError` where it dies before."""
        _make_choice(victim.pid, 1000)
        if victim.ended:
            raise RuntimeError(f"process {victim.pid} died before its memory ran out")
        argv = [sys.executable, "-c", _EAT]
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as hog:
            assert hog.stdin
            assert hog.stdout
            hog.stdout.readline()
            _make_choice(hog.pid, 900)  # the second
            self._procs.write_text(str(hog.pid))
            try:
                until(self._limit_to_what_is_used)
                hog.stdin.write(b"!")
                hog.stdin.flush()
                victim.wait_end()
            finally:
                (self._path / self._limit).write_text(self._unlimited)
                hog.kill()
                with suppress(FileNotFoundError, ProcessLookupError):  # it is dead, as it should be
                    _make_choice(victim.pid, 0)

    def _take_once(self, process: psutil.Process) -> bool:
        """False where there was somebody to be moved, who may have got another child meanwhile."""
        outside = [pid for pid in _family(process) if pid not in self._members()]
        for pid in outside:
            with suppress(ProcessLookupError):
                self._procs.write_text(str(pid))
        return not outside

    def _limit_to_what_is_used(self) -> bool:
        """And a little more; False where more than that came into use meanwhile."""
        used = int((self._path / self._usage).read_text())
        try:
            (self._path / self._limit).write_text(str(used + _SLACK))
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            return False
        return True

    def _members(self) -> set[int]:
        return set(map(int, self._procs.read_text().split()))


def _family(process: psutil.Process) -> list[int]:
    """A process and its descendants, without those that have ended."""
    found = []
    for member in (process, *process.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            if member.status() != psutil.STATUS_ZOMBIE:
                found.append(member.pid)
    return found


def _make_choice(pid: int, score: int) -> None:
    """How much the kernel prefers to kill this process: 1000 is before any other."""
    Path(f"/proc/{pid}/oom_score_adj").write_text(str(score))
