"""Asks the supervisor for what the portal may not do itself: one request at a time, a line of JSON each way."""

from __future__ import annotations

import asyncio
import socket

import msgspec

from mpq_supervisor.requests import MAX_REQUEST, Request, Response

TIMEOUT = 5.0


class Unanswered(Exception):
    """The supervisor did not answer, or is going."""


class Orders:
    """Over the socket that the supervisor left us."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._lock = asyncio.Lock()
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._broken = False

    async def ask(self, request: Request) -> Response:
        """The answer; raises Unanswered. After a failure none is asked any more: it could be the last one's."""
        async with self._lock:
            if self._broken:
                raise Unanswered("the supervisor does not take orders any more")
            try:
                async with asyncio.timeout(TIMEOUT):
                    return await self._ask(request)
            except (TimeoutError, OSError, asyncio.IncompleteReadError, msgspec.MsgspecError, ValueError) as error:
                self._broken = True
                raise Unanswered(str(error) or "the supervisor does not answer") from error

    async def _ask(self, request: Request) -> Response:
        if self._streams is None:
            self._streams = await asyncio.open_unix_connection(sock=self._sock, limit=16 * MAX_REQUEST)
        reader, writer = self._streams
        writer.write(msgspec.json.encode(request) + b"\n")
        await writer.drain()
        return msgspec.json.decode(await reader.readuntil(), type=Response)
