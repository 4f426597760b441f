"""Hears of changes to links, addresses, routes, rules, nftables and qdiscs, whoever makes them (FIELD 14).

What a message says does not matter: the state is read anew, once per burst. So nothing is missed when the
kernel has to drop some of them. Of some things it says nothing (a TUN's `src_valid_mark`): now and then it is read
anew without a message.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable

_DEBOUNCE = 0.05  # seconds from the first message of a burst
_PATROL = 10.0  # seconds without a message
_QDISC_DEBOUNCE = 0.5  # a kernel that takes only a part of ours makes us hear of ourselves each time we try
_NETLINK_NETFILTER = 12
_SOL_NETLINK = 270
_ADD_MEMBERSHIP = 1
_LINK, _ADDRESS4, _ROUTE4, _RULE4, _ADDRESS6, _ROUTE6, _RULE6 = 1, 5, 7, 8, 9, 11, 19  # RTNLGRP_
_ROUTE_GROUPS = (_LINK, _ADDRESS4, _ROUTE4, _RULE4, _ADDRESS6, _ROUTE6, _RULE6)
_QDISC_GROUPS = (4,)  # RTNLGRP_TC
_NFTABLES_GROUPS = (7,)  # NFNLGRP_NFTABLES


class Monitor:
    """Calls `changed(nftables)` in the running loop; `nftables` tells whether the rule sets were touched too."""

    def __init__(self, changed: Callable[[bool], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._changed = changed
        self._timer: asyncio.TimerHandle | None = None
        self._nftables = False
        self._sockets = (
            self._listen(socket.NETLINK_ROUTE, _ROUTE_GROUPS),
            self._listen(socket.NETLINK_ROUTE, _QDISC_GROUPS, delay=_QDISC_DEBOUNCE),
            self._listen(_NETLINK_NETFILTER, _NFTABLES_GROUPS, nftables=True),
        )

    def look(self, delay: float = _DEBOUNCE) -> None:
        """Calls `changed` after so many seconds, or sooner, as if something had."""
        when = self._loop.time() + delay
        if self._timer is not None and self._timer.when() > when:
            self._timer.cancel()
            self._timer = None
        if self._timer is None:
            self._timer = self._loop.call_at(when, self._fire)

    def close(self) -> None:
        """Stops listening; `changed` is not called any more."""
        for sock in self._sockets:
            self._loop.remove_reader(sock)
            sock.close()
        if self._timer is not None:
            self._timer.cancel()

    def _listen(
        self, family: int, groups: tuple[int, ...], *, nftables: bool = False, delay: float = _DEBOUNCE
    ) -> socket.socket:
        kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        sock = socket.socket(socket.AF_NETLINK, kind, family)
        sock.bind((0, 0))
        for group in groups:
            sock.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)
        self._loop.add_reader(sock, self._readable, sock, nftables, delay)
        return sock

    def _readable(self, sock: socket.socket, nftables: bool, delay: float) -> None:
        _drain(sock)
        self._nftables = self._nftables or nftables
        self.look(delay)

    def _fire(self) -> None:
        nftables, self._nftables, self._timer = self._nftables, False, None
        self.look(_PATROL)
        self._changed(nftables)


def _drain(sock: socket.socket) -> None:
    while True:
        try:
            sock.recv(1)  # the rest of the message goes with it
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.ENOBUFS:  # too many to hold: that is a change as well
                raise
