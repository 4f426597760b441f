"""The largest packet follows the path: one that is small from the beginning, and one that shrinks in silence."""

from __future__ import annotations

from mpq_worker.contract import PeerSilent
from mpq_worker.mtu import GRAIN
from mpq_worker.wire import DATAGRAM_OVERHEAD
from tests.sim.conftest import HUB_INNER, SITE_INNER, World
from tests.sim.network import IP_UDP_HEADERS, Node
from tests.sim.packets import number_of, packet


def narrow(mtu: int, *nodes: Node) -> None:
    for node in nodes:
        node.uplink.mtu = mtu


def inner_mtu(node: Node) -> int:
    """As its report says."""
    (peer,) = node.core._peers
    return peer.stats().datagram_size - DATAGRAM_OVERHEAD


def assert_found(mtu: int, *nodes: Node) -> None:
    largest = mtu - IP_UDP_HEADERS - DATAGRAM_OVERHEAD
    assert all(largest - GRAIN < inner_mtu(node) <= largest for node in nodes), [inner_mtu(node) for node in nodes]


def stream(world: World, node: Node, source: str, destination: str, seconds: float) -> None:
    """A TCP-like sender: it learns from ICMP how large its packets may be, and sends a hundred a second."""
    sizes, heard = [1400], 0
    for number in range(int(seconds * 100)):

        def send(number: int = number) -> None:
            nonlocal heard
            for _, data in node.delivered[heard:]:
                if data[9] == 1 and data[20:22] == bytes((3, 4)):
                    sizes.append(int.from_bytes(data[26:28], "big"))
            heard = len(node.delivered)
            unbreakable = bytearray(packet(source, destination, number, sizes[-1]))
            unbreakable[6] |= 0x40  # don't fragment
            world.net.send_packet(node, bytes(unbreakable))

        world.net.at(world.net.now + number / 100, send)


def test_a_wide_path_costs_one_probe(world: World) -> None:
    hub, site = world.add_hub(), world.add_site()
    site.capture = True
    world.net.run(3.0)
    assert (inner_mtu(site), inner_mtu(hub)) == (1400, 1400)
    assert sum(len(data) == 1400 + DATAGRAM_OVERHEAD for data in site.captured) == 1


def test_a_path_of_1400_connects_and_is_measured(world: World) -> None:
    hub, site = world.add_hub(), world.add_site()
    narrow(1400, hub, site)
    world.net.run(5.0)
    assert_found(1400, hub, site)


def test_a_path_that_shrinks_in_silence_carries_on(world: World) -> None:
    hub, site = world.add_hub(), world.add_site()
    narrow(1400, hub, site)
    world.net.run(5.0)
    stream(world, site, SITE_INNER, HUB_INNER, 10.0)
    stream(world, hub, HUB_INNER, SITE_INNER, 10.0)
    world.net.run(3.0)
    narrow(1300, hub, site)
    world.net.run(3.0)
    assert_found(1300, hub, site)
    for node in (hub, site):
        arrived = {number_of(data) for when, data in node.delivered if data[9] != 1}
        missing = [n for n in range(int(3.0 * 100), int(5.5 * 100)) if n not in arrived]
        assert len(missing) < 120, missing  # of a second, until it is sure
        assert max(missing) < 450
    assert not [m for m in site.messages if isinstance(m, PeerSilent)]


def test_loss_alone_does_not_shrink_a_path(world: World) -> None:
    hub, site = world.add_hub(), world.add_site()
    world.net.run(1.0)
    site.uplink.loss = hub.uplink.loss = 0.2
    stream(world, site, SITE_INNER, HUB_INNER, 10.0)
    world.net.run(10.0)
    assert inner_mtu(site) == 1400
