"""One supervisor per runtime directory, and what a dead one has left there.

A worker goes on without its supervisor and keeps its TUN; a SIGSTOPped one does not even notice. So each
supervisor writes down its children, by pid and start time, and the next one ends those that still are who they
were. The lock tells a dead supervisor from a live one; a pid alone would not.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import select
import signal
from collections.abc import Iterable
from pathlib import Path

import msgspec

from mpq_supervisor.files import write_atomically
from mpq_worker.errors import HostFault

_PATIENCE_MS = 5000
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

log = logging.getLogger(__name__)


class Child(msgspec.Struct, frozen=True):
    """A process of ours. `started` is field 22 of /proc/PID/stat: clock ticks since boot."""

    pid: int
    started: int


class _Record(msgspec.Struct, frozen=True):
    boot: str
    children: tuple[Child, ...]


class Register:
    """The lock and the list of children of this supervisor."""

    def __init__(self, directory: Path) -> None:
        """Takes the lock, held until this process ends. Raises HostFault when another supervisor has it."""
        self._path = directory / "children.json"
        self._written: frozenset[int] = frozenset()
        self._failing = False
        self.besides: frozenset[int] = frozenset()  # children that `write` is not told of
        try:
            directory.mkdir(mode=0o755, parents=True, exist_ok=True)
            self._lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise HostFault(f"{directory}: another supervisor is running") from error
        except OSError as error:
            raise HostFault(f"{error.filename or directory}: {error.strerror}") from error

    def clear(self, spared: Iterable[int] = ()) -> int:
        """Kills and waits for the children of a dead supervisor, all but the `spared`; returns how many there were.

        Raises HostFault when one does not die.
        """
        try:
            record = msgspec.json.decode(self._path.read_bytes(), type=_Record)
        except FileNotFoundError:
            return 0
        except msgspec.MsgspecError as error:
            raise HostFault(f"{self._path}: {error}; end what is left of mpq and remove it") from error
        if record.boot != _boot():
            return 0
        return sum(_end(child) for child in record.children if child.pid not in set(spared))

    def close(self) -> None:
        """Gives the lock up."""
        os.close(self._lock)

    def write(self, pids: Iterable[int]) -> None:
        """Notes the children as they are now; those that have ended meanwhile are left out.

        A file that cannot be written is told once: the tunnels matter more than a tidy next start.
        """
        now = frozenset(pids) | self.besides
        if now == self._written:
            return
        try:
            children = tuple(Child(pid, started) for pid in sorted(now) if (started := start_time(pid)))
            write_atomically(self._path, msgspec.json.encode(_Record(_boot(), children)), 0o600)
            self._written, self._failing = now, False
        except OSError as error:
            if not self._failing:
                log.error("%s: %s: a next start may not find its leftovers", self._path, error.strerror)
            self._failing = True


def start_time(pid: int) -> int:
    """Clock ticks from boot to the start of a process; 0 when there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return int(stat.rpartition(")")[2].split()[19])  # the name before it may contain anything


def _end(child: Child) -> bool:
    try:
        pidfd = os.pidfd_open(child.pid)
    except ProcessLookupError:
        return False
    except OSError as error:
        # A thread has the number now, or only a process group: Linux 6.1 says so of a zygote whose workers go on.
        if error.errno not in (errno.EINVAL, errno.ENOENT):
            raise
        return False
    try:
        # The pidfd is taken first: whoever has this start time now is whom the signal reaches.
        if start_time(child.pid) != child.started:
            return False
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        if not poll.poll(_PATIENCE_MS):
            raise HostFault(f"process {child.pid} of an earlier supervisor does not end")
        log.warning("ended process %d, left by an earlier supervisor", child.pid)
        return True
    except ProcessLookupError:
        return False
    finally:
        os.close(pidfd)


def _boot() -> str:
    return _BOOT_ID.read_text().strip()
