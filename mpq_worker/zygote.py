"""The zygote: a small process without an event loop that has imported what workers need, and forks them.

    supervisor ── exec ──▶ zygote ── fork ──▶ child: close descriptors, isolate, driver.run(channel), _exit
                             │
                             ├─ fork ──▶ spare: close descriptors, rehearse, wait for a Fork; then as above
                             │
                             └─ poll(channel, pidfd of each child): Fork → Forked, Ping → Pong, exit → Reaped

One spare is kept, whose pages are its own already: it is at work sooner (docs/decisions/processes.md).

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
from functools import partial
from pathlib import Path
from typing import NoReturn

import msgspec
import pyprctl
from cryptography.hazmat.backends import default_backend

from mpq_worker._image import Image
from mpq_worker.channel import Channel, ChannelClosed, pair
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


class Waiting(msgspec.Struct, frozen=True):
    """A spare's word: it is warm, and waits for its order."""


WorkerMain = Callable[[Channel[ToWorker]], int]
"""What a worker runs once isolated; returns its exit code."""

WORKER_FD = 3
OOM_SCORE_ADJ = 200
SPARE_PAUSE = (0.5, 60.0)
"""A spare is made when nothing was wanted for so many seconds; and the longest pause, after some that died unused."""

_KEEP = {pyprctl.Cap.SETUID, pyprctl.Cap.SETGID, pyprctl.Cap.SYS_NICE}
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Zygote:
    """Serves one supervisor over `channel`; every worker runs `run`, a spare `warm` before it waits for an order."""

    def __init__(self, channel: Channel[ToZygote], run: WorkerMain, warm: Callable[[], None]) -> None:
        self._channel = channel
        self._run = run
        self._warm = warm
        self._program = build_filter()
        self._children: dict[int, int] = {}  # pidfd → pid
        self._spare: tuple[int, Channel[Waiting]] | None = None  # its pidfd, and where it waits once it has said so
        self._pause = SPARE_PAUSE[0]
        self._poll = select.poll()

    def serve(self) -> None:
        """Returns when the supervisor is gone.

        Raises ChannelFault when it talks nonsense, OSError when fork fails: it then starts another zygote.
        """
        self._poll.register(self._channel.fileno(), select.POLLIN)
        try:
            while True:
                ready = self._poll.poll(None if self._spare else self._pause * 1000)
                for fd, _ in ready:
                    if fd in self._children:
                        self._reap(fd)
                    else:
                        self._serve_channel()
                if not ready:
                    self._make_spare()
        except ChannelClosed:
            return
        finally:
            self._dismiss_spare()

    def _serve_channel(self) -> None:
        while (received := self._channel.receive()) is not None:
            match received:
                case Fork() as order, [fd]:
                    self._fork(order, fd)
                case Ping(seq=seq), _:
                    self._send(Pong(seq, rss=int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE))

    def _fork(self, order: Fork, worker_fd: int) -> None:
        pidfd = self._order_spare(order, worker_fd)
        if pidfd is None:
            pidfd = self._spawn(lambda: (order, _keep_only(worker_fd)))
        os.close(worker_fd)
        self._send(Forked(order.seq, self._children[pidfd]), pidfd)

    def _spawn(self, begin: Callable[[], tuple[Fork, int]]) -> int:
        """A child that becomes the worker which `begin` gives it; returns its pidfd."""
        pid = os.fork()
        if pid == 0:
            self._become(begin)
        pidfd = os.pidfd_open(pid)
        self._children[pidfd] = pid
        self._poll.register(pidfd, select.POLLIN)
        return pidfd

    def _make_spare(self) -> None:
        ours, theirs = pair()
        with theirs:
            self._spare = self._spawn(lambda: self._stand_by(theirs.fileno())), Channel[Waiting](ours, Waiting)

    def _order_spare(self, order: Fork, worker_fd: int) -> int | None:
        """The pidfd of the spare, which has its order; None if there is none that waits for one."""
        if self._spare is None:
            return None
        pidfd, orders = self._spare
        try:
            if orders.receive() is None:
                return None
            orders.send(order, [worker_fd])
        except ChannelClosed:
            return None  # it is dead, and about to be reaped
        orders.close()
        self._spare, self._pause = None, SPARE_PAUSE[0]
        return pidfd

    def _dismiss_spare(self) -> None:
        """Nobody stays behind when the zygote goes."""
        if self._spare is not None:
            pidfd, orders = self._spare
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
            orders.close()

    def _reap(self, pidfd: int) -> None:
        result = os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
        assert result is not None
        self._poll.unregister(pidfd)
        os.close(pidfd)
        pid = self._children.pop(pidfd)
        if self._spare is not None and self._spare[0] == pidfd:
            self._spare[1].close()
            self._spare = None
            self._pause = min(2 * self._pause, SPARE_PAUSE[1])
            return
        code = result.si_status if result.si_code == os.CLD_EXITED else -result.si_status
        self._send(Reaped(pid, code))

    def _send(self, message: FromZygote, *fds: int) -> None:
        # Waiting is right here: nobody but the supervisor wants anything of us, and it never waits for us.
        while not self._channel.send(message, fds):
            select.select([], [self._channel], [])

    def _become(self, begin: Callable[[], tuple[Fork, int]]) -> NoReturn:
        code: int = ExitCode.NOPERM
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_DFL)
            # When the supervisor dies while one of us is stopped, the kernel sends this to the whole group.
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            order, worker_fd = begin()
            pyprctl.set_name(f"mpq-{order.name}"[:15])
            isolate(order, self._program)
            code = ExitCode.SOFTWARE
            channel = Channel[ToWorker].from_fd(worker_fd, ToWorker)
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

    def _stand_by(self, fd: int) -> tuple[Fork, int]:
        """A spare's life until it is wanted. Raises ChannelClosed when the zygote has gone."""
        pyprctl.set_name("mpq-spare")
        orders = Channel[Fork].from_fd(_keep_only(fd), Fork)
        self._warm()
        gc.collect()
        gc.freeze()
        orders.send(Waiting())
        select.select([orders], [], [])
        received = orders.receive()
        orders.close()
        assert received is not None
        order, [worker_fd] = received
        return order, worker_fd


def _keep_only(fd: int) -> int:
    """Closes every descriptor but the standard ones and `fd`, which is WORKER_FD from now on."""
    if fd != WORKER_FD:
        os.dup2(fd, WORKER_FD, inheritable=False)
    os.closerange(WORKER_FD + 1, os.sysconf("SC_OPEN_MAX"))
    return WORKER_FD


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


def main(
    argv: list[str] | None = None, run: WorkerMain | None = None, warm: Callable[[], None] = lambda: None
) -> int:
    """Entry point of `python -m mpq_worker.zygote --fd N`; `run` replaces the driver in tests."""
    parser = argparse.ArgumentParser(prog="mpq-zygote")
    parser.add_argument("--fd", type=int, required=True, help="the inherited channel")
    arguments = parser.parse_args(argv)
    pyprctl.set_name("mpq-zygote")
    image = Image()
    if run is None:
        from mpq_worker import driver, rehearsal

        rehearsal.rehearse(time.time())
        run, warm = partial(driver.run, image=image), rehearsal.warm
    preload()
    shed_privileges()
    zygote = Zygote(Channel.from_fd(arguments.fd, ToZygote), run, warm)
    gc.collect()
    gc.freeze()
    try:
        image.take()
    except (OSError, MemoryError) as error:
        print(f"workers take more memory than they have to: no image of the zygote: {error!r}", file=sys.stderr)
    zygote.serve()
    return 0


if __name__ == "__main__":
    sys.exit(main())
