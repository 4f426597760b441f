"""The portal as the supervisor sees it: a child of its own, started anew when it ends, that no tunnel depends on.

start ─▶ exec ─▶ Setup over the feed; orders come back over a second socket (`control.Control.attend`)
it ends ─▶ its pidfd is readable ─▶ a pause, doubled each time it did not live for `HEALTHY_AFTER` ─▶ start
other settings ─▶ end of the feed, some time to store what it has ─▶ it ends ─▶ start at once
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from mpq_supervisor.events import Kind, marks
from mpq_supervisor.feed import Feed
from mpq_supervisor.happenings import explain
from mpq_supervisor.plan import HostPlan
from mpq_supervisor.portal.messages import Setup
from mpq_worker.channel import pair
from mpq_worker.contract import PERMANENT

COMMAND = (sys.executable, "-I", "-m", "mpq_supervisor.portal")
PAUSE = (1.0, 30.0)
"""First and longest pause before it is started again."""
HEALTHY_AFTER = 60.0
CLOSE_TIMEOUT = 3.0
"""Its web server takes a second at most for requests on their way, its recorder one for what waits for the disk."""

log = logging.getLogger(__name__)


class PortalProcess:
    """`attend` is given the socket that the portal's orders come by, `born` each new pid, and None when it ended."""

    def __init__(
        self,
        feed: Feed,
        attend: Callable[[socket.socket], None],
        born: Callable[[int | None], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._feed = feed
        self._attend = attend
        self._born = born
        self._setup: Setup | None = None
        self._popen: subprocess.Popen[bytes] | None = None
        self._pidfd = -1
        self._started = 0.0
        self._pause = PAUSE[0]
        self._timer: asyncio.TimerHandle | None = None
        self._killer: asyncio.TimerHandle | None = None  # while it has been told to end
        self._gone = asyncio.Event()
        self._gone.set()

    @property
    def pid(self) -> int | None:
        """None while there is none."""
        return self._popen.pid if self._popen else None

    def configure(self, plan: HostPlan) -> None:
        """Starts it, ends it, or starts it anew, as the plan wants; where nothing of it changed, only if it has ended
        for good."""
        setup = setup_of(plan)
        if setup == self._setup and (setup is None or self._popen is not None or self._timer is not None):
            return
        self._setup, self._pause = setup, PAUSE[0]
        if self._popen is not None:
            self._end()  # `_ended` starts the next
        else:
            self._start()

    async def close(self) -> None:
        """Ends it for good."""
        self._setup = None
        self._disarm()
        if self._popen is not None:
            self._end()
        await self._gone.wait()

    def _start(self) -> None:
        self._disarm()
        if self._setup is None:
            return
        try:
            feed, orders = self._spawn()
        except OSError as error:  # no descriptor, no memory: others may give some back
            log.warning("portal: %s; again in %.0f s", error.strerror, self._pause, extra=marks(Kind.SUPERVISOR))
            self._start_later()
            return
        assert self._popen is not None
        self._gone.clear()
        self._started = self._loop.time()
        self._loop.add_reader(self._pidfd, self._ended)
        self._born(self._popen.pid)
        self._attend(orders)
        self._feed.open(feed, self._setup)

    def _spawn(self) -> tuple[socket.socket, socket.socket]:
        """Our ends of its sockets, for the feed and for its orders. Raises OSError, and there is no process then."""
        with ExitStack() as ours, ExitStack() as its:
            feed, portal_feed = pair()
            ours.enter_context(feed)
            its.enter_context(portal_feed)
            orders, portal_orders = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
            ours.enter_context(orders)
            its.enter_context(portal_orders)
            ends = portal_feed.fileno(), portal_orders.fileno()
            popen = subprocess.Popen(
                [*COMMAND, *map(str, ends)],
                pass_fds=ends,
                stdin=subprocess.DEVNULL,
                stdout=2,
                process_group=0,  # a terminal's Ctrl-C is for the supervisor
            )
            try:
                self._pidfd = os.pidfd_open(popen.pid)
            except OSError:
                popen.kill()
                popen.wait()
                raise
            self._popen = popen
            ours.pop_all()
            return feed, orders

    def _ended(self) -> None:
        assert self._popen is not None
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        status = self._popen.wait()
        self._popen = None
        planned = self._killer is not None
        if self._killer is not None:
            self._killer.cancel()
            self._killer = None
        self._feed.close_channel()
        self._born(None)
        self._gone.set()
        if self._setup is None:
            return
        if planned:
            self._start()
            return
        if status in PERMANENT:
            log.error("portal: %s; not started again before a reload", explain(status), extra=marks(Kind.SUPERVISOR))
            return
        lived = self._loop.time() - self._started
        self._pause = PAUSE[0] if lived >= HEALTHY_AFTER else self._pause
        log.warning("portal: %s; again in %.0f s", explain(status), self._pause, extra=marks(Kind.SUPERVISOR))
        self._start_later()

    def _start_later(self) -> None:
        self._timer = self._loop.call_later(self._pause, self._start)
        self._pause = min(2 * self._pause, PAUSE[1])

    def _end(self) -> None:
        """End of file is its order to store what it has been told and go; lines from now on are for the next."""
        self._feed.close_channel()
        if self._killer is None:
            self._killer = self._loop.call_later(CLOSE_TIMEOUT, self._kill)

    def _kill(self) -> None:
        if self._popen is not None:
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def setup_of(plan: HostPlan) -> Setup | None:
    """What the portal of a plan is told; None where there is to be none. Its uid is the one before the workers'."""
    portal = plan.portal
    if portal is None:
        return None
    return Setup(
        role=plan.role,
        name=plan.name,
        uid=plan.supervisor.uid_base - 1,
        listen=tuple((str(address), portal.port) for address in portal.address),
        certificate=portal.certificate,
        key=portal.key,
        tokens=portal.token,
        directory=str(history_directory(plan)),
        history_mb=portal.history_mb,
        alarms=portal.alarm,
        webhook=portal.webhook,
    )


def history_directory(plan: HostPlan) -> Path:
    """Where the portal of a plan keeps its history."""
    return Path(plan.supervisor.state_directory) / "portal"
