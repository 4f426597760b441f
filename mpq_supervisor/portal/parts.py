"""What the handlers of the web application work with, and how they get at it."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakSet

from litestar.connection import ASGIConnection
from litestar.exceptions import NotFoundException

from mpq_supervisor.events import Kind, Marks
from mpq_supervisor.portal.auth import Gate, Identity
from mpq_supervisor.portal.bell import Bell
from mpq_supervisor.portal.exposition import Exposition
from mpq_supervisor.portal.history.query import History
from mpq_supervisor.portal.history.samples import Event
from mpq_supervisor.portal.journal import Journal
from mpq_supervisor.portal.orders import Orders
from mpq_supervisor.portal.state import State, Tunnel
from mpq_supervisor.portal.watch import Watch
from mpq_supervisor.printable import printable

Connection = ASGIConnection[Any, Any, Any, Any]

log = logging.getLogger(__name__)


class Listener:
    """Somebody whom the stream goes to, as long as anything holds it."""


@dataclass(frozen=True)
class Parts:
    """One of each per portal."""

    state: State
    gate: Gate
    exposition: Exposition
    history: History
    journal: Journal
    orders: Orders
    watch: Watch
    bell: Bell = field(default_factory=Bell)
    streams: WeakSet[Listener] = field(default_factory=WeakSet)  # those who listen

    def tunnel(self, name: str) -> Tunnel:
        """The tunnel of that name; 404 where there is none."""
        tunnel = self.state.tunnels.get(name)
        if tunnel is None:
            raise NotFoundException(f'no tunnel "{name}"')
        return tunnel

    def audit(self, who: Identity, what: str, before: str, after: str, tunnel: Tunnel | None = None) -> None:
        """Writes down who changed what: into the log and the history."""
        text = printable(f"{who.name} ({who.role.name.lower()}): {what}: {before} → {after}")
        about = ("", "", "")
        if tunnel is not None:
            about = (tunnel.status.name, tunnel.status.wan, tunnel.status.traffic_class)
        self.journal.add(Event(time.time(), Kind.AUDIT, logging.INFO, text, *about, reason=who.name))
        log.info("audit: %s", text, extra={"marks": Marks(Kind.AUDIT, *about, reason=who.name)})
        self.bell.ring()


def parts_of(connection: Connection) -> Parts:
    """Of the application that a request came to."""
    parts: Parts = connection.app.state.parts
    return parts


def who_of(connection: Connection) -> Identity:
    """Who asks, once the guard has let him in."""
    who: Identity = connection.state.who
    return who
