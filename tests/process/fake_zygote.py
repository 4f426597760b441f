"""The real zygote with a small worker instead of the driver: `python fake_zygote.py --fd N`.

The worker is Ready when configured, beats every 50 ms, ends when told to. Named `probe` it tries what a worker
must not be able to do and tells the outcomes as Notices; named `crash` it fails when configured; named `hoard`
it asks for signatures. Workers say that they are of a release so many ahead as MPQ_TEST_RELEASES_AHEAD says.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import resource
import select
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

from mpq_worker import zygote
from mpq_worker.channel import Channel, ChannelClosed
from mpq_worker.contract import (
    CONTRACT_VERSION,
    Adopt,
    ConfigureHub,
    ConfigureSite,
    Drain,
    Drained,
    ExitCode,
    FromWorker,
    Heartbeat,
    Lead,
    Notice,
    PeerMoved,
    Ready,
    Rebind,
    SetSites,
    Signature,
    SignRequest,
    Standing,
    Stop,
    ToWorker,
)

BEAT = 0.05
_libc = ctypes.CDLL(None, use_errno=True)


def run(channel: Channel[ToWorker]) -> int:
    """Stands in for `driver.run`."""
    name = Path("/proc/self/comm").read_text().strip().removeprefix("mpq-")
    beats = 0
    channel.send(Heartbeat(beats, beats))
    if name == "probe":
        for attempt, outcome in probe().items():
            channel.send(Notice("probe", json.dumps([attempt, outcome])))
    while True:
        readable, _, _ = select.select([channel], [], [], BEAT)
        try:
            while readable and (received := channel.receive()) is not None:
                for message in answer(name, *received):
                    channel.send(message)
                if isinstance(received[0], Stop):
                    return ExitCode.OK
            beats += 1
            channel.send(Heartbeat(beats, beats))
        except ChannelClosed:
            return ExitCode.OK


def answer(name: str, message: ToWorker, fds: list[int]) -> list[FromWorker]:
    """What the worker says to a message of the supervisor."""
    match message:
        case ConfigureSite() | ConfigureHub():
            if name == "crash":
                raise RuntimeError("told to")
            if name == "hoard":
                return [SignRequest(1, "tls", b"x"), Ready()]
            return [Ready(), Notice("configured", f"{len(fds)} descriptors")]
        case Drain():
            return [Drained(), PeerMoved(("10.200.10.5",))]
        case Adopt():
            return [Standing(ready=True)]
        case Rebind() | SetSites() | Lead() | PeerMoved():
            return [Notice(type(message).__name__, str(message))]
        case Signature(signature=signature):
            return [Notice("signature", f"{len(signature)} bytes")]
        case Stop():
            return []


def probe() -> dict[str, object]:
    """Name of each attempt → errno name, or what it returned."""
    neighbour = int(os.environ["MPQ_TEST_NEIGHBOUR"])
    attempts: dict[str, Callable[[], object]] = {
        "kill neighbour": lambda: os.kill(neighbour, signal.SIGSTOP),
        "kill self": lambda: os.kill(os.getpid(), 0),
        "open secret": lambda: os.open(os.environ["MPQ_TEST_SECRET"], os.O_RDONLY),
        "open for writing": lambda: os.open("/tmp/mpq-test-must-not-exist", os.O_WRONLY | os.O_CREAT),
        "append to public": lambda: os.open(os.environ["MPQ_TEST_PUBLIC"], os.O_WRONLY | os.O_APPEND),
        "list directory": lambda: os.listdir("/"),
        "fork": os.fork,
        "new socket": socket.socket,
        "bind": lambda: _bind(channel_fd=3),
        "io_uring_setup": lambda: syscall(425, 8, 0),
        "memory to execute": lambda: _mmap_executable(),
        "set uid 0": lambda: os.setuid(0),
        "raise descriptors": lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (1000, 1000)),
        "lower nice": lambda: os.setpriority(os.PRIO_PROCESS, 0, -20),
        "descriptors": lambda: [fd for fd in range(200) if _is_open(fd)],
        "pss": lambda: "Pss:" in Path("/proc/self/smaps_rollup").read_text(),
        "cwd": os.getcwd,
    }
    return {name: _outcome(attempt) for name, attempt in attempts.items()}


def syscall(number: int, *args: int) -> int:
    """A raw system call. Raises OSError."""
    result = _libc.syscall(number, *args)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return int(result)


def _outcome(attempt: Callable[[], object]) -> object:
    try:
        return attempt()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    except ValueError as error:  # what setrlimit makes of EPERM
        return str(error)


def _bind(channel_fd: int) -> None:
    with socket.socket(fileno=os.dup(channel_fd)) as sock:
        sock.bind("\0mpq-test")


def _mmap_executable() -> str:
    _libc.mmap.restype = ctypes.c_void_p
    address = _libc.mmap(None, 4096, 7, 0x22, -1, 0)
    if address == ctypes.c_void_p(-1).value:
        raise OSError(ctypes.get_errno(), "mmap")
    return "granted"


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


if __name__ == "__main__":
    version = CONTRACT_VERSION + int(os.environ.get("MPQ_TEST_RELEASES_AHEAD", "0"))
    vars(zygote)["CONTRACT_VERSION"] = version
    sys.exit(zygote.main(run=run))
