"""The supervisor's side of the zygote: starts it, has it fork, watches it, adopts its workers when it dies.

    fork(order, fd) ─▶ Fork ─▶ zygote ─▶ Forked + pidfd ─▶ Process.pid
    worker ends: the zygote reaps and says Reaped; when the zygote is dead, the worker has become our own child
    (PR_SET_CHILD_SUBREAPER) and its pidfd is watched and reaped here

The zygote's own end is seen on its pidfd and not on its channel: the channel closes earlier, while the workers
still have their old parent.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence

import msgspec
import psutil

from mpq_supervisor.events import Kind, marks
from mpq_supervisor.happenings import explain
from mpq_supervisor.lifecycle import START_PAUSE
from mpq_worker.channel import Channel, ChannelClosed, ChannelFault, pair
from mpq_worker.contract import Fork, Forked, FromWorker, FromZygote, Ping, Pong, Reaped

COMMAND = (sys.executable, "-I", "-m", "mpq_worker.zygote")
PING_INTERVAL = 1.0
PONG_TIMEOUT = 2.5
START_TIMEOUT = 30.0  # to the first Pong: it imports and rehearses, on a slow machine for seconds
CLOSE_TIMEOUT = 1.0
_STOPPED = {psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP}

log = logging.getLogger(__name__)


class Process:
    """A worker process, from the order to fork it until it is reaped. Owns the channel and the pidfd."""

    def __init__(
        self,
        name: str,
        channel: Channel[FromWorker],
        born: Callable[[int], None],
        ended: Callable[[int | None], None],
    ) -> None:
        """`born` is told the pid, `ended` the exit status as by os.waitstatus_to_exitcode, or None."""
        self.name = name
        self.channel = channel
        self.pid: int | None = None  # None until the zygote has said Forked
        self._pidfd = -1
        self._doomed = False
        self._born = born
        self._ended = ended

    @property
    def pidfd(self) -> int:
        """-1 until the zygote has said Forked."""
        return self._pidfd

    def kill(self) -> None:
        """SIGKILL, at once or as soon as the process exists."""
        self._doomed = True
        if self._pidfd >= 0:
            try:
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            except ProcessLookupError:
                log.debug("%s has ended before it could be killed", self.name)

    def stopped(self) -> bool:
        """Whether it is stopped by a signal or a debugger, as opposed to waiting for a CPU or for something to do."""
        try:
            return self.pid is not None and psutil.Process(self.pid).status() in _STOPPED
        except (psutil.NoSuchProcess, OSError):
            return False  # its end is about to be told; or we have no descriptor left to look

    def begin(self, pid: int, pidfd: int) -> None:
        """The zygote has forked it."""
        self.pid, self._pidfd = pid, pidfd
        self._born(pid)
        if self._doomed:
            self.kill()

    def adopt(self, loop: asyncio.AbstractEventLoop) -> None:
        """Its zygote is dead: reap it ourselves when it ends."""
        loop.add_reader(self._pidfd, self._reap, loop)

    def end(self, status: int | None) -> None:
        """It is gone; tells the owner."""
        self.pid = None
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1
        self._ended(status)

    def _reap(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.remove_reader(self._pidfd)
        try:
            result = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG)
        except ChildProcessError:  # the dying zygote reaped it and could not tell
            result = None
        if result is None:
            self.end(None)
        else:
            self.end(result.si_status if result.si_code == os.CLD_EXITED else -result.si_status)


class Zygote:
    """One zygote at a time. `tick` must be called a few times per second."""

    def __init__(self, loop: asyncio.AbstractEventLoop, command: Sequence[str] = COMMAND) -> None:
        self._loop = loop
        self._command = command
        self._popen: subprocess.Popen[bytes] | None = None
        self._pidfd = -1
        self._channel: Channel[FromZygote] | None = None
        self._closing = False
        self._gone = asyncio.Event()
        self._seq = 0
        self._answered = False  # this one has said Pong
        self._heard = self._next_ping = self._respawn_at = 0.0
        self._pending: dict[int, Process] = {}  # seq of Fork → not yet Forked
        self._alive: dict[int, Process] = {}  # pid → forked by the zygote that lives
        self._adopted: dict[int, Process] = {}  # pid → forked by one that has died
        self.losses = 0
        self.rss = 0

    @property
    def pid(self) -> int | None:
        """None while there is none."""
        return self._popen.pid if self._popen else None

    def start(self) -> None:
        """Executes a zygote; orders may follow at once, they wait in its channel. Raises OSError."""
        ours, theirs = pair()
        with theirs:
            popen = subprocess.Popen(
                [*self._command, "--fd", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=2,  # standard error: ours is for nobody but the log
                process_group=0,  # a terminal's Ctrl-C is for the supervisor; no setsid, see ARCHITECTURE 2
            )
        self._pidfd = os.pidfd_open(popen.pid)
        self._popen = popen
        self._channel = Channel[FromZygote](ours, FromZygote)
        self._answered = False
        self._gone.clear()
        self._heard = self._next_ping = self._loop.time()
        self._loop.add_reader(self._pidfd, self._lost)
        self._loop.add_reader(self._channel.fileno(), self._receive)

    def fork(self, order: Fork, worker_end: int, process: Process) -> bool:
        """Orders a worker; `order.seq` is filled in here. False when there is no zygote to order from."""
        self._seq += 1
        if not self._send(msgspec.structs.replace(order, seq=self._seq), worker_end):
            return False
        self._pending[self._seq] = process
        return True

    def tick(self, now: float) -> None:
        """Pings, kills a zygote that does not answer, starts the next one when it is time."""
        if self._popen is None:
            if not self._closing and now >= self._respawn_at:
                self._begin()
        elif now - self._heard > (PONG_TIMEOUT if self._answered else START_TIMEOUT):
            log.error("zygote %d does not answer: killed", self._popen.pid)
            self._kill()
            self._heard = now
        elif now >= self._next_ping:
            self._next_ping = now + PING_INTERVAL
            self._send(Ping(self._seq))
        if self.losses:
            self._reap_strays()

    def excuse(self, now: float) -> None:
        """We ourselves were late: nobody's silence so far counts."""
        self._heard = now

    async def close(self) -> None:
        """Ends the zygote for good: by closing its channel, and after a second by SIGKILL."""
        self._closing = True
        if self._channel is not None:
            self._drop_channel()
        if self._popen is None:
            return
        killer = self._loop.call_later(CLOSE_TIMEOUT, self._kill)
        await self._gone.wait()
        killer.cancel()

    def _begin(self) -> None:
        """Starts the next one, or tries again later where the host has no descriptor or no process left."""
        try:
            self.start()
        except OSError as error:
            log.error("no zygote: %s", error.strerror)
            self._respawn_at = self._loop.time() + START_PAUSE

    def _receive(self) -> None:
        assert self._channel is not None
        try:
            while (received := self._channel.receive()) is not None:
                self._handle(*received)
        except ChannelClosed:
            self._drop_channel()
        except ChannelFault as error:
            log.error("zygote: %s: killed", error)
            self._drop_channel()
            self._kill()

    def _handle(self, message: FromZygote, fds: list[int]) -> None:
        match message:
            case Forked(seq=seq, pid=pid):
                process = self._pending.pop(seq, None)
                if process is None:
                    raise ChannelFault(f"Forked {seq} was not ordered")
                self._alive[pid] = process
                process.begin(pid, fds[0])
            case Reaped(pid=pid, status=status):
                process = self._alive.pop(pid, None)
                if process is None:
                    raise ChannelFault(f"Reaped {pid} is not a worker")
                process.end(status)
            case Pong(rss=rss):
                self._answered, self._heard, self.rss = True, self._loop.time(), rss

    def _lost(self) -> None:
        assert self._popen is not None
        self._loop.remove_reader(self._pidfd)
        if self._channel is not None:
            self._receive()  # what it still said; that may be a fault, so the pidfd is there yet
        if self._channel is not None:
            self._drop_channel()
        os.close(self._pidfd)
        status = self._popen.wait()
        self._popen = None
        self._gone.set()
        self._respawn_at = self._loop.time() + (0.0 if self._answered else START_PAUSE)
        if not self._closing:
            self.losses += 1
            log.error(
                "zygote lost: %s; %d workers go on",
                explain(status),
                len(self._alive) + sum(process.pid is not None for process in self._adopted.values()),
                extra=marks(Kind.SUPERVISOR, reason="zygote"),
            )
            if self._answered:
                self._begin()
        orphans, self._alive = self._alive, {}
        for pid, process in orphans.items():
            self._adopted[pid] = process
            process.adopt(self._loop)
        unborn, self._pending = self._pending, {}
        for process in unborn.values():
            process.end(None)

    def _reap_strays(self) -> None:
        """Adopted children that nobody knows: forked by a zygote that died before it could say so."""
        self._adopted = {pid: process for pid, process in self._adopted.items() if process.pid is not None}
        while True:
            try:
                zombie = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if zombie is None or zombie.si_pid == self.pid or zombie.si_pid in self._adopted:
                return
            log.debug("reaped stray %d", zombie.si_pid)
            os.waitpid(zombie.si_pid, 0)

    def _send(self, message: Fork | Ping, *fds: int) -> bool:
        if self._channel is None:
            return False
        try:
            return self._channel.send(message, fds)
        except ChannelClosed:
            return False

    def _drop_channel(self) -> None:
        assert self._channel is not None
        self._loop.remove_reader(self._channel.fileno())
        self._channel.close()
        self._channel = None

    def _kill(self) -> None:
        if self._popen is not None:
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
