"""Accepts the portal's connections: so many in all and from one source, counted from before their TLS handshake on.

listening socket ─▶ Door ─▶ TLS ─▶ Connection ─▶ application
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Iterable

from mpq_supervisor.portal.auth import source_of
from mpq_supervisor.portal.connection import REQUEST_TIMEOUT, Connection
from mpq_supervisor.portal.state import Refusal

MAX_CONNECTIONS = 400
"""`privileges.MAX_DESCRIPTORS` has room for them and for everything else."""
MAX_FROM_ONE = 100
"""From one source, see `auth.source_of`."""
STALLED_TIMEOUT = 60.0
"""Seconds that what a client was sent may be unacknowledged, or unsent for want of its window (tcp(7))."""
GOODBYE_TIMEOUT = 5.0
"""Seconds that TLS waits for the other end's goodbye."""
BACKLOG = 1024
ACCEPT_BUDGET = 64
PAUSE = 1.0
"""Seconds before it accepts again, after the host had no descriptor or memory for a connection."""

log = logging.getLogger(__name__)


class Door:
    """`tls` is None for plain HTTP; `make` makes a connection that calls what it is given when it ends."""

    def __init__(
        self,
        addresses: Iterable[tuple[str, int]],
        tls: ssl.SSLContext | None,
        make: Callable[[Callable[[], None]], Connection],
        refused: Counter[Refusal],
    ) -> None:
        """Listens. Raises OSError."""
        self._sockets = [_listener(*address) for address in addresses]
        self._tls = tls
        self._make = make
        self._refused = refused
        self._present: Counter[str] = Counter()  # by source
        self._beginnings: set[asyncio.Task[None]] = set()

    def open(self) -> None:
        """Accepts from now on."""
        for sock in self._sockets:
            self._attend(sock)

    def close(self) -> None:
        """Accepts no more."""
        for sock in self._sockets:
            asyncio.get_running_loop().remove_reader(sock)
            sock.close()
        for beginning in self._beginnings:
            beginning.cancel()

    def _attend(self, sock: socket.socket) -> None:
        if sock.fileno() >= 0:
            asyncio.get_running_loop().add_reader(sock, self._accept, sock)

    def _accept(self, sock: socket.socket) -> None:
        for _ in range(ACCEPT_BUDGET):
            try:
                connection, address = sock.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:
                log.warning("portal: accept: %s", errno.errorcode.get(error.errno or 0, error))
                loop = asyncio.get_running_loop()
                loop.remove_reader(sock)
                loop.call_later(PAUSE, self._attend, sock)
                return
            self._take(connection, source_of(address[0]))

    def _take(self, sock: socket.socket, source: str) -> None:
        full = self._present.total() >= MAX_CONNECTIONS
        if full or self._present[source] >= MAX_FROM_ONE:
            self._refused[Refusal.FULL if full else Refusal.SOURCE] += 1
            sock.close()
            return
        self._present[source] += 1
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(STALLED_TIMEOUT * 1000))
        beginning = asyncio.get_running_loop().create_task(self._begin(sock, source))
        self._beginnings.add(beginning)
        beginning.add_done_callback(self._beginnings.discard)

    async def _begin(self, sock: socket.socket, source: str) -> None:
        connection = self._make(lambda: self._leave(source))
        loop = asyncio.get_running_loop()
        try:
            if self._tls is None:
                await loop.connect_accepted_socket(lambda: connection, sock)
            else:
                await loop.connect_accepted_socket(
                    lambda: connection, sock, ssl=self._tls,
                    ssl_handshake_timeout=REQUEST_TIMEOUT, ssl_shutdown_timeout=GOODBYE_TIMEOUT,
                )  # fmt: skip
        except OSError:
            self._refused[Refusal.HANDSHAKE] += 1
        finally:
            if connection.transport is None:  # it never began, so it will not end
                self._leave(source)

    def _leave(self, source: str) -> None:
        self._present[source] -= 1
        if not self._present[source]:
            del self._present[source]


def _listener(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    sock.bind((address, port))
    sock.listen(BACKLOG)
    sock.setblocking(False)
    return sock
