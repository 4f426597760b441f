"""Addresses that are not the site's, and those that have become its own: who may move a connection."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mpq_worker.contract import Ready
from mpq_worker.errors import DropReason
from tests.sim.conftest import HUB_INNER, SITE_INNER, World
from tests.sim.flood import SPOOFED
from tests.sim.network import Node
from tests.sim.nodes import drops, numbers, peer_of, talk
from tests.unit.sessions import forge


class Spoof:
    """What `steal` calls with each packet: it comes to the hub from an address that is not the site's, which is sent
    no more than three times as much (RFC 9000 section 8.1)."""

    def __init__(self, world: World, hub: Node) -> None:
        self._world, self._hub = world, hub
        self.received = 0

    def __call__(self, data: bytes) -> None:
        self.received += len(data)
        self._hub.core.handle_udp(data, SPOOFED, self._world.net.now)
        self._world.net.flush(self._hub)
        assert self._hub.bytes_to[SPOOFED] <= 3 * self.received


def steal(world: World, site: Node, hub: Node, delay: float, spoof: Callable[[bytes], None]) -> None:
    """From now on a copy of each packet of `site` arrives from elsewhere, `delay` before the true one."""
    transmit = world.net._transmit

    def both(node: Node, data: bytes, to: tuple[str, int]) -> None:
        if node is site:
            world.net.at(world.net.now + node.uplink.delay - delay, lambda: spoof(data))
        transmit(node, data, to)

    world.net._transmit = both  # type: ignore[method-assign]  # in its place, for the test


def test_copies_that_arrive_first_from_elsewhere_divert_nothing(world: World) -> None:
    """An observer near the hub is faster than the site, and spoofs the address of a victim."""
    hub, site = world.add_hub(), world.add_site()
    world.net.run(0.2)
    spoof = Spoof(world, hub)
    steal(world, site, hub, 0.005, spoof)
    talk(world, site, SITE_INNER, HUB_INNER, 300)
    talk(world, hub, HUB_INNER, SITE_INNER, 300)
    world.net.run(4.0)
    assert numbers(site) == list(range(300))
    assert numbers(hub) == list(range(300))
    assert peer_of(hub).session.address[:2] == site.addr
    assert 0 < hub.bytes_to[SPOOFED] < 0.5 * spoof.received  # it was asked whether it is there, and no more


def test_a_handshake_does_not_move(world: World) -> None:
    """Copies of a handshake from elsewhere would otherwise prove an address that never answered."""
    hub, site = world.add_hub(), world.add_site()
    world.net.run(0.015)  # the first packet is the site's own
    steal(world, site, hub, 0.005, Spoof(world, hub))
    world.net.run(0.5)
    assert Ready() in site.messages
    assert peer_of(hub).session.address[:2] == site.addr
    assert drops(world, hub)[DropReason.PATH] >= 1


def rebind(world: World, site: Node, port: int) -> None:
    """The NAT before the site gives it another port; the old one leads nowhere any more."""
    del world.net.nodes[site.addr]
    site.addr = (site.addr[0], port)
    world.net.nodes[site.addr] = site


@pytest.mark.parametrize("busy", [True, False])
def test_a_rebinding_is_followed_when_it_has_answered(world: World, busy: bool) -> None:
    hub, site = world.add_hub(), world.add_site()
    world.net.run(1.0)
    old = site.addr
    rebind(world, site, 5555)
    if busy:
        talk(world, site, SITE_INNER, HUB_INNER, 100)
    talk(world, hub, HUB_INNER, SITE_INNER, 100)
    world.net.run(2.0)
    assert peer_of(hub).session.address[:2] == site.addr != old
    assert hub.core.report(world.net.now).refusals == {}
    lost = 100 - len(site.delivered)
    outage = lost * 0.01
    assert outage <= (0.08 if busy else 0.35), "three trips when it talks; one probe interval more when it does not"


def test_challenges_that_are_lost_are_sent_again(world: World) -> None:
    hub, site = world.add_hub(), world.add_site()
    world.net.run(1.0)
    rebind(world, site, 5555)
    hub.uplink.loss = 1.0
    talk(world, site, SITE_INNER, HUB_INNER, 200)
    world.net.run(0.3)
    hub.uplink.loss = 0.0
    world.net.run(1.0)
    assert peer_of(hub).session.address[:2] == site.addr
    assert site.core.report(world.net.now).reconnects == 0


def test_many_rebindings_do_not_use_up_the_connection_ids(world: World) -> None:
    hub, site = world.add_hub(), world.add_site()
    world.net.run(1.0)
    for port in range(5000, 5030):
        rebind(world, site, port)
        talk(world, site, SITE_INNER, HUB_INNER, 40)
        world.net.run(0.5)
        assert peer_of(hub).session.address[:2] == site.addr
    assert site.core.report(world.net.now).reconnects == 0


def test_a_forged_path_response_proves_nothing(world: World) -> None:
    """The site itself, gone bad, cannot answer for a victim that it cannot hear."""
    hub, site = world.add_hub(), world.add_site()
    world.net.run(0.3)
    for answer in range(50):
        data = forge(peer_of(site).session, b"\x1b" + answer.to_bytes(8, "big") + b"\x01")
        hub.core.handle_udp(data, SPOOFED, world.net.now)
        world.net.flush(hub)
    assert peer_of(hub).session.address[:2] == site.addr
    assert hub.bytes_to[SPOOFED] <= 3 * 50 * 40
