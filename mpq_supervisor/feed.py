"""The portal's feed: what the supervisor tells it, never waiting for it and never holding much.

    log lines ──▶ a bounded queue ──┐
    state of the fleet, each second ┴─▶ tick ─▶ one packet each ─▶ portal

A portal that does not read is told less: of each worker only the latest matters, of the lines the newest.
"""

from __future__ import annotations

import logging
import socket
import time
from collections import deque
from collections.abc import Callable

import msgspec

from mpq_supervisor.events import Kind, Marks
from mpq_supervisor.portal.messages import HostSample, Line, Message, Question, Setup, WorkerSample
from mpq_supervisor.status import HostStatus
from mpq_worker.channel import Channel, ChannelClosed, ChannelFault

INTERVAL = 1.0
MAX_LINES = 512
MAX_TEXT = 2000


class Feed(logging.Handler):
    """Also a handler of the root logger. `status` tells how the host stands."""

    def __init__(self, status: Callable[[], HostStatus]) -> None:
        super().__init__(logging.INFO)
        self._status = status
        self._channel: Channel[Message] | None = None
        self._lines: deque[Line] = deque()
        self._samples: dict[str, Message] = {}  # by worker, "" for the host: not sent yet
        self._next = 0.0
        self.lost = 0

    def open(self, sock: socket.socket, setup: Setup) -> None:
        """A portal has been started at the other end of `sock`; lines that waited for one come first."""
        self.close_channel()
        self._channel = Channel[Message](sock, Message)
        self._samples, self._next = {}, 0.0
        self._send(setup)

    def close_channel(self) -> None:
        """The portal has ended, or shall: end of file is its order to."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def ask(self, question: Question) -> bool:
        """Hands it to the portal at once; False where there is none, or it does not read."""
        return self._channel is not None and self._send(question)

    def tick(self, now: float) -> None:
        """Sends what is due; call several times a second."""
        if self._channel is None:
            return
        while self._lines and self._send(self._lines[0]):
            self._lines.popleft()
        if now >= self._next:
            self._next = now + INTERVAL
            self._sample()
        while self._samples:
            key = next(iter(self._samples))
            if not self._send(self._samples[key]):
                return
            del self._samples[key]

    def emit(self, record: logging.LogRecord) -> None:
        """A line of the log."""
        about: Marks | None = getattr(record, "marks", None)
        self._lines.append(Line(record.created, record.levelno, record.getMessage()[:MAX_TEXT], about))
        if about is not None and about.kind is Kind.STATE:
            self._next = 0.0  # do not wait for the second to be over
        if len(self._lines) > MAX_LINES:
            self._lines.popleft()
            self.lost += 1

    def _sample(self) -> None:
        self.lost += len(self._samples)
        host, at = self._status(), time.time()
        self._samples = {worker.name: WorkerSample(at, worker) for worker in host.workers}
        self._samples[""] = HostSample(
            at=at,
            uptime=host.uptime,
            pid=host.pid,
            zygote_pid=host.zygote_pid,
            zygote_losses=host.zygote_losses,
            workers=tuple(worker.name for worker in host.workers),
            sites=host.sites,
            lost=self.lost,
            guarded=host.guarded,
            wans=host.wans,
        )

    def _send(self, message: msgspec.Struct) -> bool:
        """False when it should be tried again later."""
        assert self._channel is not None
        try:
            return self._channel.send(message)
        except ChannelFault:  # too large to be sent ever
            self.lost += 1
            return True
        except ChannelClosed:  # its end is about to be told
            return False
