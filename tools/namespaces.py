"""Network namespaces and the processes in them: enter, fill, empty, delete. The root namespace stays as it is."""

from __future__ import annotations

import contextlib
import os
import re
import select
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

NETNS = Path("/run/netns")
_LAB_NAME = re.compile(r"(?P<prefix>mpq[a-z]*(?P<pid>\d+))-[a-z]+\d*")


def enter(name: str) -> list[str]:
    """Start of an argv that runs the rest inside namespace `name`, as the same process and without a mount."""
    return ["nsenter", f"--net={NETNS / name}", "--"]


def directory_of(prefix: str) -> Path:
    """Where the lab of that prefix keeps logs, sockets and certificates."""
    return Path(tempfile.gettempdir()) / f"{prefix}-lab"


def batch(lines: Iterable[str], command: Iterable[str] = ("ip",)) -> None:
    """Run lines by `ip -batch`. Raises `RuntimeError` with what ip said."""
    feed([*command, "-batch", "-"], "\n".join(lines))


def feed(argv: list[str], text: str) -> None:
    """Run a command with `text` as its input. Raises `RuntimeError` with what it said on failure."""
    done = subprocess.run(argv, input=text, text=True, capture_output=True, check=False, process_group=0)
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)}: {done.stderr.strip()}\n{text}")


def write_sysctls(name: str, values: dict[str, str]) -> None:
    """Write settings below /proc/sys as namespace `name` sees it."""
    script = "\n".join(f"echo {value} >/proc/sys/{key}" for key, value in values.items())
    feed([*enter(name), "sh", "-e"], script)


def pids(names: Iterable[str]) -> list[int]:
    """Processes whose network namespace is one of `names`."""
    wanted = {(NETNS / name).stat().st_ino for name in names if (NETNS / name).exists()}
    found = []
    for entry in os.listdir("/proc"):
        # A process may end while we look, and one that we may not look at (a container's init) is none of ours.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            if entry.isdecimal() and os.stat(f"/proc/{entry}/ns/net").st_ino in wanted:
                found.append(int(entry))
    return found


def kill(names: Iterable[str]) -> None:
    """SIGKILL every process in these namespaces, and those they forked meanwhile; returns when they are gone."""
    names = list(names)
    for _ in range(10):
        found = pids(names)
        if not found:
            return
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                _kill(pid)
    raise RuntimeError(f"processes {pids(names)} outlive SIGKILL")


def _kill(pid: int) -> None:
    fd = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(fd, signal.SIGKILL)
        select.select([fd], [], [], 2)
    finally:
        os.close(fd)


def remove(prefix: str) -> None:
    """Delete the lab of that prefix, whoever made it: processes, namespaces, files. There need not be one."""
    names = [path.name for path in NETNS.glob(f"{prefix}-*")]
    kill(names)
    if names:
        batch(f"netns del {name}" for name in names)
    for line in Path("/proc/mounts").read_text().splitlines():
        point = Path(line.split()[1])
        if point.is_relative_to(directory_of(prefix)):
            feed(["umount", str(point)], "")
    shutil.rmtree(directory_of(prefix), ignore_errors=True)


def remove_stale() -> None:
    """Delete every lab whose maker, named in its prefix, no longer lives."""
    names = os.listdir(NETNS) if NETNS.exists() else []
    labs = {match["prefix"]: match["pid"] for name in names if (match := _LAB_NAME.fullmatch(name))}
    for prefix, pid in labs.items():
        if not Path("/proc", pid).exists():
            remove(prefix)
