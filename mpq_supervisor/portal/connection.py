"""One connection of a client: uvicorn's protocol, within limits.

uvicorn alone gives a client for ever to make its first request or to send the rest of one, and takes as many headers,
bytes of them, and requests ahead of their answers as it sends.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from mpq_supervisor.portal.state import Refusal

REQUEST_TIMEOUT = 20.0
"""Seconds for a whole request, from the connection or from its first byte on."""
MAX_HEAD = 64 * 1024
MAX_HEADERS = 100
MAX_REQUEST = 2 << 20
"""Bytes; four times what the application takes of a body before it refuses it with an answer."""
MAX_PIPELINED = 16
"""Requests that wait for the answer to the one before them."""


class Connection(HttpToolsProtocol):
    """`leave` is called when it ends; why it was ended by us is counted in `refused`."""

    def __init__(
        self, config: Config, state: ServerState, refused: Counter[Refusal], leave: Callable[[], None]
    ) -> None:
        super().__init__(config, state, {})
        self._refused = refused
        self._leave = leave
        self._deadline: asyncio.TimerHandle | None = None
        self._in_head = True
        self._whole = False
        self._received = 0  # bytes of the present request, but for the packet it began in

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        """The time for the first request begins."""
        super().connection_made(transport)
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        """It has ended."""
        super().connection_lost(exc)
        self._disarm()
        self._leave()

    def data_received(self, data: bytes) -> None:
        """More of a request, or of several."""
        if self.transport.is_closing():
            return
        self._arm()
        self._whole = False
        self._received += len(data)
        super().data_received(data)
        if self._whole:
            self._disarm()
        elif self._received > (MAX_HEAD if self._in_head else MAX_REQUEST):
            self.send_400_response("Too long.")

    def send_400_response(self, msg: str) -> None:
        """The last answer to what is no request."""
        if not self.transport.is_closing():
            self._refused[Refusal.REQUEST] += 1
            super().send_400_response(msg)

    # ------------------------------------------------------------ the parser's; what they raise is answered with 400

    def on_message_begin(self) -> None:
        """Of a request."""
        super().on_message_begin()
        self._in_head, self._whole, self._received = True, False, 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """Those behind a body, which nobody here asks for, are left out: they would come among the others."""
        if not self._in_head:
            return
        if len(self.headers) >= MAX_HEADERS:
            raise ValueError("too many headers")
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The request goes to the application."""
        self._in_head = False
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > MAX_HEAD:
            raise ValueError("too long a head")
        if len(self.pipeline) >= MAX_PIPELINED:
            raise ValueError("too many requests ahead of their answers")
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Of a request, its body included."""
        self._whole = True
        super().on_message_complete()

    # ------------------------------------------------------------ helpers

    def _arm(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(REQUEST_TIMEOUT, self._expire)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _expire(self) -> None:
        self._refused[Refusal.SLOW] += 1
        self.transport.abort()
