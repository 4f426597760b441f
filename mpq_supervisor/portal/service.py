"""The portal's loop: the feed in, the web server out, until the feed ends."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import uvicorn

from mpq_supervisor.portal import console
from mpq_supervisor.portal.app import make_app
from mpq_supervisor.portal.auth import Gate
from mpq_supervisor.portal.connection import Connection
from mpq_supervisor.portal.door import Door
from mpq_supervisor.portal.exposition import Exposition
from mpq_supervisor.portal.history.query import History
from mpq_supervisor.portal.history.recorder import Recorder
from mpq_supervisor.portal.history.samples import Batch, Sampler, event_of
from mpq_supervisor.portal.journal import Journal
from mpq_supervisor.portal.messages import Line, Message, Question, Setup
from mpq_supervisor.portal.orders import Orders, Unanswered
from mpq_supervisor.portal.parts import Parts
from mpq_supervisor.portal.state import State
from mpq_supervisor.portal.watch import Watch
from mpq_supervisor.requests import Request
from mpq_worker.channel import Channel, ChannelClosed

READ_BUDGET = 256
EARLY = 0.01
"""Seconds by which a loop may wake too soon; uvloop does by a millisecond."""

log = logging.getLogger(__name__)


class Service:
    """One portal. `tls` is None for plain HTTP, `orders` the socket that the supervisor takes orders by, `secret`
    the webhook's."""

    def __init__(
        self,
        setup: Setup,
        feed: Channel[Message],
        orders: socket.socket,
        tls: ssl.SSLContext | None,
        secret: bytes,
    ) -> None:
        self._feed = feed
        self._state = State(setup)
        self._sampler = Sampler()
        self._recorder = Recorder(Path(setup.directory), setup.history_mb)
        journal, history = Journal(), History(Path(setup.directory))
        self._parts = Parts(
            state=self._state,
            gate=Gate(setup.tokens),
            exposition=Exposition(self._state),
            history=history,
            journal=journal,
            orders=Orders(orders),
            watch=Watch(setup, journal, history, secret),
        )
        config = uvicorn.Config(
            make_app(self._parts),
            lifespan="off",
            ws="none",
            log_config=None,
            log_level=logging.ERROR,  # what strangers send is counted, not told
            access_log=False,
            server_header=False,
            proxy_headers=False,  # who asks is who is locked out, whatever a header says
            timeout_graceful_shutdown=1,
        )
        config.load()
        self._config, self._tls = config, tls
        self._server = uvicorn.Server(config)
        self._answers: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Until the supervisor ends the feed, or SIGTERM. Raises OSError when an address cannot be had."""
        listen = self._state.setup.listen
        door = Door(listen, self._tls, self._connection, self._state.refused)
        loop = asyncio.get_running_loop()
        loop.add_reader(self._feed.fileno(), self._receive)
        for address, port in listen:
            log.info("portal: listening on %s port %d", address, port)
        door.open()
        self._recorder.start()
        tasks = [loop.create_task(self._every_second())]
        if (webhook := self._parts.watch.webhook) is not None:
            tasks.append(loop.create_task(webhook.run()))
        for task in tasks:
            task.add_done_callback(self._fell)
        try:
            await self._server.serve(sockets=[])
        finally:
            door.close()
            for task in tasks:
                task.cancel()
            if events := self._parts.journal.take():  # since the last second: the next portal is not told them again
                self._recorder.put(Batch(int(time.time()), (), events))
            self._recorder.close()

    def _connection(self, leave: Callable[[], None]) -> Connection:
        return Connection(self._config, self._server.server_state, self._state.refused, leave)

    async def _every_second(self) -> None:
        while True:
            await asyncio.sleep(until_next_look(time.time()))
            now, wall = time.monotonic(), time.time()
            self._parts.watch.look(self._state, now, wall)
            self._state.delivery = self._parts.watch.delivery()
            rows = self._sampler.rows(self._state, now)
            self._recorder.put(Batch(int(wall), rows, self._parts.journal.take()))
            self._state.history_bytes, self._state.history_lost = self._recorder.bytes, self._recorder.lost
            if not self._state.fresh(now):  # nobody else rings
                self._parts.bell.ring()
            if self._parts.orders.ended and not self._server.should_exit:  # the next portal can ask again
                log.warning("portal: the supervisor takes no orders: %s", self._parts.orders.ended)
                self._server.should_exit = True

    def _receive(self) -> None:
        try:
            for _ in range(READ_BUDGET):
                received = self._feed.receive()
                if received is None:
                    break
                self._take(received[0])
            self._parts.bell.ring()
        except ChannelClosed:
            asyncio.get_running_loop().remove_reader(self._feed.fileno())
            self._server.should_exit = True
            self._parts.bell.end()  # streams would go on, and be cancelled

    def _take(self, message: Message) -> None:
        self._state.take(message, time.monotonic())
        if isinstance(message, Line) and message.marks is not None:
            self._parts.journal.add(event_of(message, message.marks))
        elif isinstance(message, Question):
            task = asyncio.get_running_loop().create_task(self._answer(message))
            self._answers.add(task)
            task.add_done_callback(self._answers.discard)

    async def _answer(self, question: Question) -> None:
        text = msgspec.json.encode(console.respond(self._parts, question.request)).decode()
        try:
            await self._parts.orders.ask(Request("answer", numbers=(question.number,), text=text))
        except Unanswered as error:
            log.warning("portal: %s", error)

    def _fell(self, task: asyncio.Task[None]) -> None:
        """What goes on for ever did not: better another portal than one without its alarms."""
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("portal: ends for a fault of its own", exc_info=error)
            self._server.should_exit = True


def until_next_look(wall: float) -> float:
    """Seconds until just after the middle of the next second of the wall clock, so that none is recorded twice or
    missed: who wakes before the middle would come again at once."""
    return 1 - (wall - 0.5) % 1 + EARLY
