"""A site and a hub in virtual time: what must hold whatever the network does."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
from cryptography.hazmat.primitives.hashes import SHA256

from mpq_worker.contract import Notice, PeerBack, PeerSilent, Ready, SignRequest, Timing, Transport
from mpq_worker.errors import DropReason
from mpq_worker.tunnel import SiteTunnel
from tests.sim.conftest import HUB_INNER, SITE_INNER, World
from tests.sim.network import Node
from tests.sim.nodes import numbers
from tests.sim.packets import number_of, packet


def notices(node: Node, kind: str) -> list[str]:
    return [m.text for m in node.messages if isinstance(m, Notice) and m.kind == kind]


def stream(world: World, node: Node, source: str, destination: str, pps: int, seconds: float, size: int = 100) -> int:
    """Schedules numbered packets from `node`; returns how many."""
    total = int(pps * seconds)
    for number in range(total):
        when = world.net.now + number / pps
        world.net.at(when, lambda n=number: world.net.send_packet(node, packet(source, destination, n, size)))  # type: ignore[misc]  # a lambda's default
    return total


def test_connects_in_two_round_trips(world: World) -> None:
    hub, site = world.add_hub(), world.add_site()
    start = world.net.now
    world.net.run(0.1)
    assert Ready() in site.messages
    assert notices(hub, "site") == ["ship1 connected from 100.64.5.2:46011"]
    world.net.send_packet(site, packet(SITE_INNER, HUB_INNER, 7))
    world.net.run(0.02)
    assert numbers(hub) == [7]
    assert world.net.now - start < 0.13


def test_is_ready_also_when_the_answer_to_its_probe_comes_before_the_welcome(world: World) -> None:
    """A hub that reads Hello and probe in one wake-up answers in one packet, in which DATAGRAM frames stand first."""
    world.net.flush = lambda node: None  # type: ignore[method-assign]  # in its place, for the test
    hub, site = world.add_hub(), world.add_site()
    now = world.net.now
    for _ in range(50):
        now += 0.001
        for node, other in ((site, hub), (hub, site)):
            node.core.handle_timer(now)
            for data, _ in node.core.poll_transmit(now):
                other.core.handle_udp(data, node.addr, now)
            while (message := node.core.poll_message()) is not None:
                node.messages.append(message)
                if isinstance(message, SignRequest):
                    node.core.handle_signature(message.seq, node.key.sign(message.data, ECDSA(SHA256())), now)
    assert Ready() in site.messages


def test_carries_both_ways_without_loss(world: World) -> None:
    hub, site = world.add_hub(), world.add_site()
    world.net.run(0.2)
    begin, on_the_wire = site.core.report(world.net.now).path, site.uplink.sent
    up = stream(world, site, SITE_INNER, HUB_INNER, 1000, 3.0, 1400)
    down = stream(world, hub, HUB_INNER, SITE_INNER, 1000, 3.0, 1400)
    world.net.run(3.5)
    assert numbers(hub) == list(range(up))
    assert numbers(site) == list(range(down))
    end = site.core.report(world.net.now)
    assert end.drops == {}
    assert begin is not None
    assert end.path is not None
    assert end.path.packets_sent - begin.packets_sent == site.uplink.sent - on_the_wire  # acknowledgements too


def test_random_loss_costs_only_what_is_lost(world: World) -> None:
    """Loss without a queue is not congestion: 30 % of the packets go, the other 70 % arrive."""
    hub, site = world.add_hub(), world.add_site()
    world.net.run(0.2)
    site.uplink.loss = hub.uplink.loss = 0.30
    total = stream(world, site, SITE_INNER, HUB_INNER, 1500, 5.0, 1250)
    world.net.run(6.0)
    assert 0.66 < len(numbers(hub)) / total < 0.74
    stats = site.core.report(world.net.now).path
    assert stats is not None
    assert stats.packets_lost / stats.packets_sent > 0.25


def test_a_bottleneck_is_not_flooded(world: World) -> None:
    """15 Mbit/s into 5: the window follows the delivery rate and most of the loss happens at our own queue."""
    hub, site = world.add_hub(), world.add_site()
    site.uplink.rate, site.uplink.buffer = 625_000.0, 30_000
    world.net.run(0.2)
    stream(world, site, SITE_INNER, HUB_INNER, 1500, 8.0, 1250)
    world.net.run(3.0)
    sent, lost, got = site.uplink.sent, site.uplink.lost, len(hub.delivered)
    world.net.run(5.0)
    assert (len(hub.delivered) - got) * 1250 / 5.0 > 0.85 * 625_000
    assert (site.uplink.lost - lost) / (site.uplink.sent - sent) < 0.10


def test_key_updates_lose_nothing(world: World) -> None:
    """Both ends update every 64 packets, under reordering (RFC 9001 section 6)."""
    world.transport = Transport(key_update_packets=64)
    hub, site = world.add_hub(), world.add_site()
    world.net.run(0.2)
    for node in (hub, site):
        node.uplink.reorder = 0.05
    up = stream(world, site, SITE_INNER, HUB_INNER, 2000, 4.0, 300)
    down = stream(world, hub, HUB_INNER, SITE_INNER, 2000, 4.0, 300)
    world.net.run(4.5)
    assert sorted(numbers(hub)) == list(range(up))
    assert sorted(numbers(site)) == list(range(down))
    stats = site.core.report(world.net.now).path
    assert stats is not None
    assert stats.key_updates > 20


def test_key_updates_under_loss_keep_the_connection(world: World) -> None:
    world.transport = Transport(key_update_packets=64)
    hub, site = world.add_hub(), world.add_site()
    world.net.run(0.2)
    site.uplink.loss = hub.uplink.loss = 0.02
    total = stream(world, site, SITE_INNER, HUB_INNER, 2000, 4.0, 300)
    world.net.run(4.5)
    lost = total - len(numbers(hub))
    assert lost / total < 0.04
    assert site.core.report(world.net.now).reconnects == 0


def test_hub_worker_replaced_is_noticed_by_stateless_reset(world: World) -> None:
    hub, site = world.add_hub(), world.add_site()
    world.net.run(1.0)
    hub.alive = False
    fresh = world.add_hub()  # same address, same reset key, no memory of the connection
    stream(world, site, SITE_INNER, HUB_INNER, 100, 1.0)
    died = world.net.now
    world.net.run(1.0)
    assert fresh.delivered
    assert fresh.delivered[0][0] - died < 0.15
    assert site.core.report(world.net.now).reconnects == 1


def test_silent_hub_is_reported_and_its_return_too(world: World) -> None:
    hub, site = world.add_hub(), world.add_site()
    world.net.run(1.0)
    hub.uplink.loss = site.uplink.loss = 1.0
    world.net.run(5.0)
    assert [m for m in site.messages if isinstance(m, PeerSilent)]
    assert PeerBack() not in site.messages
    hub.uplink.loss = site.uplink.loss = 0.0
    world.net.run(2.5)
    assert PeerBack() in site.messages
    world.net.send_packet(site, packet(SITE_INNER, HUB_INNER, 1))
    world.net.run(0.1)
    assert numbers(hub) == [1]


def test_a_short_outage_keeps_the_connection(world: World) -> None:
    """A Starlink stutter of half a second is no reason for a new handshake."""
    hub, site = world.add_hub(), world.add_site()
    world.net.run(1.0)
    hub.uplink.loss = site.uplink.loss = 1.0
    world.net.run(0.5)
    hub.uplink.loss = site.uplink.loss = 0.0
    world.net.run(1.0)
    assert site.core.report(world.net.now).reconnects == 0
    assert not [m for m in site.messages if isinstance(m, PeerSilent)]
    assert not hub.core.report(world.net.now).refusals


def test_address_change_migrates(world: World) -> None:
    """The site's NAT gives it another port: the connection stays, the hub answers to the new one."""
    hub, site = world.add_hub(), world.add_site()
    world.net.run(1.0)
    del world.net.nodes[site.addr]
    site.addr = ("100.64.9.9", 50_000)
    world.net.nodes[site.addr] = site
    stream(world, hub, HUB_INNER, SITE_INNER, 100, 2.0)
    stream(world, site, SITE_INNER, HUB_INNER, 100, 2.0)
    changed = world.net.now
    world.net.run(2.5)
    assert site.delivered[0][0] - changed < 0.2
    assert site.core.report(world.net.now).reconnects == 0
    assert len(numbers(site)) > 180
    assert [status.peer for status in hub.core.report(world.net.now).sites] == [site.addr]


def test_a_new_socket_is_reported_as_soon_as_it_hears(world: World) -> None:
    """The supervisor saw the WAN go for less than `peer_timeout`: it waits for a word that the tunnel is back."""
    world.add_hub()
    site = world.add_site()
    world.net.run(0.5)
    assert isinstance(site.core, SiteTunnel)
    site.core.handle_rebind(("198.51.100.2", 45011), world.net.now)
    assert PeerBack() not in site.messages
    world.net.run(0.5)
    assert site.messages.count(PeerBack()) == 1
    assert site.core.report(world.net.now).reconnects == 0


def test_reconnecting_site_takes_over_from_itself(world: World) -> None:
    """A site worker was killed: the new one has the address at once, the old connection drains and goes."""
    hub, old = world.add_hub(), world.add_site(port=46011)
    world.net.run(0.5)
    old.alive = False
    new = world.add_site(port=46012)
    world.net.run(0.1)
    assert Ready() in new.messages
    stream(world, hub, HUB_INNER, SITE_INNER, 100, 0.5)
    world.net.run(0.6)
    assert numbers(new) == list(range(50))
    world.net.run(3.0)
    assert len(hub.core.report(world.net.now).sites) == 1


def test_classes_of_one_site_share_a_worker(make_world: Callable[[], World], monkeypatch: pytest.MonkeyPatch) -> None:
    """A shared listener: three connections of one identity, none displaces another; prefixes find one that lives."""
    world = make_world()
    inner = ("10.200.11.1", "10.200.11.5", "10.200.11.9")
    world.entry("ship1", *inner, prefixes=("172.16.2.0/24",))
    hub = world.add_hub()
    sites = [world.add_site(inner=(address,), port=46010 + i) for i, address in enumerate(inner)]
    world.net.run(3.0)
    for number, address in enumerate((*inner, "172.16.2.9")):
        world.net.send_packet(hub, packet(HUB_INNER, address, number))
    world.net.run(0.1)
    assert [numbers(site) for site in sites] == [[0], [1], [2, 3]]
    sites[2].core.handle_stop(world.net.now)
    world.net.flush(sites[2])
    world.net.run(0.1)
    world.net.send_packet(hub, packet(HUB_INNER, "172.16.2.9", 4))
    world.net.run(0.1)
    assert sorted(n for site in sites[:2] for n in numbers(site)) == [0, 1, 4]
    assert len(hub.core.report(world.net.now).sites) == 2
    monkeypatch.setattr("mpq_worker.hub.MAX_STATUS", 1)
    report = hub.core.report(world.net.now)
    assert ([status.peer for status in report.sites], report.connected) == ([sites[0].addr], 2)


def test_packets_wait_for_a_connection_but_not_for_long(world: World) -> None:
    site = world.add_site()  # no hub
    world.net.run(0.5)
    assert not site.core.want_packets(world.net.now)
    world.net.run(1.0)
    assert site.core.want_packets(world.net.now)
    world.net.send_packet(site, packet(SITE_INNER, HUB_INNER))
    assert site.core.report(world.net.now).drops == {DropReason.NO_CONNECTION: 1}


def test_too_big_is_answered_with_icmp(world: World) -> None:
    world.add_hub()
    site = world.add_site()
    world.net.run(0.5)
    big = bytearray(packet(SITE_INNER, HUB_INNER, 1, 1500))
    big[6] |= 0x40  # don't fragment
    world.net.send_packet(site, bytes(big))
    assert site.delivered[-1][1][20:22] == bytes((3, 4))
    assert int.from_bytes(site.delivered[-1][1][26:28], "big") == world.transport.inner_mtu
    assert site.core.report(world.net.now).drops == {DropReason.TOO_BIG: 1}
    world.net.send_packet(site, packet(SITE_INNER, HUB_INNER, 2))
    world.net.run(0.1)
    assert site.core.report(world.net.now).packets_out == 1


def test_idle_path_is_measured(world: World) -> None:
    world.add_hub()
    site = world.add_site()
    world.net.run(5.0)
    stats = site.core.report(world.net.now).path
    assert stats is not None
    assert stats.probe_rtt is not None
    assert 0.0199 < stats.probe_rtt < 0.0210
    assert stats.loss_tx == 0.0
    assert stats.loss_rx == 0.0


def test_a_long_path_is_not_taken_for_a_silent_one(world: World) -> None:
    hub, site = world.add_hub(), world.add_site()
    hub.uplink.delay = site.uplink.delay = 0.4
    world.timing = Timing()
    world.net.run(20.0)
    assert Ready() in site.messages
    assert site.core.report(world.net.now).reconnects == 0


def test_stop_tells_the_hub(world: World) -> None:
    hub, site = world.add_hub(), world.add_site()
    world.net.run(0.5)
    site.core.handle_stop(world.net.now)
    world.net.flush(site)
    assert site.core.stopped
    assert site.core.report(world.net.now).path is None, "its last report may come after that"
    world.net.run(0.1)
    assert hub.core.report(world.net.now).sites == ()


def test_a_steady_flow_does_not_notice_the_renewal_of_the_minimum_rtt(world: World) -> None:
    """15 Mbit/s on a path with room: nothing waits and nothing is lost when the ten seconds are over."""
    hub, site = world.add_hub(), world.add_site()
    world.net.run(0.2)
    for number in range(60):  # once the window was full; that is no reason ten seconds later
        world.net.send_packet(site, packet(SITE_INNER, HUB_INNER, number, 1250))
    world.net.run(0.5)
    hub.delivered.clear()
    start = world.net.now
    total = stream(world, site, SITE_INNER, HUB_INNER, 1500, 12.0, 1250)
    world.net.run(12.5)
    assert numbers(hub) == list(range(total))
    waits = [when - start - number_of(data) / 1500 for when, data in hub.delivered]
    assert max(waits) < 0.020
