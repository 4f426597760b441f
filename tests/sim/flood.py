"""First packets of strangers, in any number."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from mpq_supervisor import pki
from mpq_worker.hub import HubTunnel
from mpq_worker.quic.establish import client_session
from mpq_worker.quic.session import Session
from tests.sim.conftest import HUB_ADDRESS, World
from tests.sim.network import Node

SPOOFED = ("192.0.2.66", 6666)


class Flood:
    """Full-sized Initials of clients that never hear the answer, each from an address of its own."""

    def __init__(self, world: World, hub: Node) -> None:
        self._world, self._hub = world, hub
        self._credentials = world._credentials(pki.issue_site(world.authority, "nobody"))
        self.received: Counter[tuple[str, int]] = Counter()

    def start(self, rate: int, seconds: float) -> None:
        self._world.net.every(1 / rate, self._world.net.now + seconds, self.one)

    def one(self) -> None:
        self.hear(self.initial())

    def hear(self, data: bytes) -> None:
        """The hub, from an address that nobody had before."""
        number = len(self.received)
        source = (f"192.0.2.{number % 250}", 1000 + number)
        self.received[source] += len(data)
        self._hub.core.handle_udp(data, source, self._world.net.now)
        self._world.net.flush(self._hub)

    def initial(self) -> bytes:
        now = self._world.net.now
        world = self._world
        session = client_session(
            hub_name="hub.test",
            hub_address=HUB_ADDRESS,
            slot=5,
            credentials=self._credentials,
            timing=world.timing,
            transport=world.transport,
            now=now,
        )
        return session.poll_transmit(now)[0][0]


def count_connections(hub: Node) -> Callable[[], int]:
    """How many the hub makes from now on."""
    core, number = hub.core, 0
    assert isinstance(core, HubTunnel)
    accept = core._factory.accept

    def counted(original_destination_cid: bytes, retry_cid: bytes | None = None) -> Session:
        nonlocal number
        number += 1
        return accept(original_destination_cid, retry_cid)

    core._factory.accept = counted  # type: ignore[method-assign]  # in its place, for the test
    return lambda: number
