"""Asks the supervisor for what the portal may not do itself: a line of JSON each way, answers in order.

An answer that comes too late is known for whose it is by its place, and dropped: the next request has its own.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque

import msgspec

from mpq_supervisor.requests import MAX_REQUEST, Request, Response

TIMEOUT = 5.0
MAX_WAITING = 16
"""Requests that the supervisor has not answered; more are not sent."""


class Unanswered(Exception):
    """The supervisor did not answer, or is going. `sent`: it may have done it all the same, or do it yet."""

    def __init__(self, text: str, *, sent: bool) -> None:
        super().__init__(text)
        self.sent = sent


class Orders:
    """Over the socket that the supervisor left us. `ended` is why it takes no more of them, once it does not."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._waiting: deque[asyncio.Future[Response]] = deque()
        self._opening = asyncio.Lock()
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        self.ended = ""

    async def ask(self, request: Request) -> Response:
        """The answer; raises Unanswered."""
        async with self._opening:
            if self._writer is None:
                reader, self._writer = await asyncio.open_unix_connection(sock=self._sock, limit=16 * MAX_REQUEST)
                self._reading = asyncio.get_running_loop().create_task(self._read(reader))
        if self.ended:
            raise Unanswered(f"the supervisor takes no orders any more: {self.ended}", sent=False)
        if len(self._waiting) >= MAX_WAITING:
            raise Unanswered(f"{MAX_WAITING} orders wait for the supervisor already", sent=False)
        answer: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        self._waiting.append(answer)
        self._writer.write(msgspec.json.encode(request) + b"\n")
        try:
            async with asyncio.timeout(TIMEOUT):
                return await answer
        except TimeoutError as error:
            raise Unanswered(f"the supervisor has not answered in {TIMEOUT:.0f} s", sent=True) from error

    async def _read(self, reader: asyncio.StreamReader) -> None:
        try:
            while True:
                line = await reader.readuntil()
                if not self._waiting:
                    raise ValueError("an answer to nothing")
                _settle(self._waiting.popleft(), line)
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError) as error:
            self.ended = str(error) or type(error).__name__
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_exception(Unanswered(f"the supervisor is gone: {self.ended}", sent=True))


def _settle(waiting: asyncio.Future[Response], line: bytes) -> None:
    if waiting.done():  # who asked has given up
        return
    try:
        waiting.set_result(msgspec.json.decode(line, type=Response))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        waiting.set_exception(Unanswered(f"the supervisor's answer cannot be read: {error}", sent=True))
