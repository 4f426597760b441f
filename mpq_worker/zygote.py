"""The zygote: a small process without an event loop that has imported what workers need, and forks them.

    supervisor ── exec ──▶ zygote ── fork ──▶ child: close descriptors, isolate, driver.run(channel), _exit
                             │
                             └─ poll(channel, pidfd of each child): Fork → Forked, Ping → Pong, exit → Reaped

It is single-threaded and always started by exec, so that its replacement is the same thing. Forking from
inside a running event loop would give the child the parent's wake-up descriptor, epoll and sockets (see
docs/decisions/processes.md). It ends when its channel does; its workers go on, adopted by the supervisor.
"""

from __future__ import annotations

import argparse
import codecs
import gc
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pyprctl
from cryptography.hazmat.backends import default_backend

from mpq_worker.channel import Channel, ChannelClosed
from mpq_worker.contract import (
    CONTRACT_VERSION,
    ExitCode,
    Fork,
    Forked,
    FromZygote,
    Ping,
    Pong,
    Reaped,
    Started,
    ToWorker,
    ToZygote,
)
from mpq_worker.isolation import build_filter, isolate

WorkerMain = Callable[[Channel[ToWorker]], int]
"""What a worker runs once isolated; returns its exit code."""

WORKER_FD = 3
OOM_SCORE_ADJ = 200

_KEEP = {pyprctl.Cap.SETUID, pyprctl.Cap.SETGID, pyprctl.Cap.SYS_NICE}
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Zygote:
    """Serves one supervisor over `channel`; every worker runs `run`."""

    def __init__(self, channel: Channel[ToZygote], run: WorkerMain) -> None:
        self._channel = channel
        self._run = run
        self._program = build_filter()
        self._children: dict[int, int] = {}  # pidfd → pid
        self._poll = select.poll()

    def serve(self) -> None:
        """Returns when the supervisor is gone.

        Raises ChannelFault when it talks nonsense, OSError when fork fails: it then starts another zygote.
        """
        self._poll.register(self._channel.fileno(), select.POLLIN)
        try:
            while True:
                for fd, _ in self._poll.poll():
                    if fd in self._children:
                        self._reap(fd)
                    else:
                        self._serve_channel()
        except ChannelClosed:
            return

    def _serve_channel(self) -> None:
        while (received := self._channel.receive()) is not None:
            match received:
                case Fork() as order, [fd]:
                    self._fork(order, fd)
                case Ping(seq=seq), _:
                    self._send(Pong(seq, rss=int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE))

    def _fork(self, order: Fork, worker_fd: int) -> None:
        pid = os.fork()
        if pid == 0:
            self._become(order, worker_fd)
        os.close(worker_fd)
        pidfd = os.pidfd_open(pid)
        self._children[pidfd] = pid
        self._send(Forked(order.seq, pid), pidfd)
        self._poll.register(pidfd, select.POLLIN)

    def _reap(self, pidfd: int) -> None:
        result = os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
        assert result is not None
        self._poll.unregister(pidfd)
        os.close(pidfd)
        code = result.si_status if result.si_code == os.CLD_EXITED else -result.si_status
        self._send(Reaped(self._children.pop(pidfd), code))

    def _send(self, message: FromZygote, *fds: int) -> None:
        # Waiting is right here: nobody but the supervisor wants anything of us, and it never waits for us.
        while not self._channel.send(message, fds):
            select.select([], [self._channel], [])

    def _become(self, order: Fork, worker_fd: int) -> NoReturn:
        code: int = ExitCode.NOPERM
        try:
            self._channel.close()
            if worker_fd != WORKER_FD:
                os.dup2(worker_fd, WORKER_FD, inheritable=False)
            os.closerange(WORKER_FD + 1, os.sysconf("SC_OPEN_MAX"))
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_DFL)
            # When the supervisor dies while one of us is stopped, the kernel sends this to the whole group.
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            pyprctl.set_name(f"mpq-{order.name}"[:15])
            isolate(order, self._program)
            code = ExitCode.SOFTWARE
            channel = Channel[ToWorker].from_fd(WORKER_FD, ToWorker)
            channel.send(Started(os.getpid(), CONTRACT_VERSION))
            code = self._run(channel)
        except ChannelClosed:
            code = ExitCode.OK  # the supervisor gave up on us before we began
        except BaseException:  # noqa: BLE001 - the last frame of this process: whatever it is, it is told and ends it
            traceback.print_exc()
        finally:
            # Not sys.exit: the parent's objects up the stack must not be finalised here.
            sys.stderr.flush()
            os._exit(code)


def preload() -> None:
    """Loads what would be loaded when first used: a worker can list no directory, map no code, import nothing."""
    for name in ("ascii", "idna", "latin-1", "utf-8"):
        codecs.lookup(name)
    default_backend()


def shed_privileges() -> None:
    """Keeps SETUID, SETGID and SYS_NICE of what there is; empties the bounding set where permitted."""
    state = pyprctl.CapState.get_current()
    if pyprctl.Cap.SETPCAP in state.effective:
        for cap in pyprctl.capbset_probe():
            pyprctl.capbset_drop(cap)
    pyprctl.cap_ambient_clear_all()
    kept = state.permitted & _KEEP
    pyprctl.CapState(effective=kept, permitted=kept, inheritable=set()).set_current()
    score = Path("/proc/self/oom_score_adj")
    score.write_text(str(max(OOM_SCORE_ADJ, int(score.read_text()))))


def main(argv: list[str] | None = None, run: WorkerMain | None = None) -> int:
    """Entry point of `python -m mpq_worker.zygote --fd N`; `run` replaces the driver in tests."""
    parser = argparse.ArgumentParser(prog="mpq-zygote")
    parser.add_argument("--fd", type=int, required=True, help="the inherited channel")
    arguments = parser.parse_args(argv)
    pyprctl.set_name("mpq-zygote")
    if run is None:
        from mpq_worker import driver, rehearsal

        rehearsal.rehearse(time.time())
        run = driver.run
    preload()
    shed_privileges()
    zygote = Zygote(Channel.from_fd(arguments.fd, ToZygote), run)
    gc.collect()
    gc.freeze()
    zygote.serve()
    return 0


if __name__ == "__main__":
    sys.exit(main())
