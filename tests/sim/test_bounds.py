"""Slow and rude ones: what each of them, site or stranger, can take of those who share a worker."""

from __future__ import annotations

import msgspec
import pytest
from aioquic.quic.crypto import CryptoPair

from mpq_worker import tunnel
from mpq_worker.admission import HELLO_TIME
from mpq_worker.contract import Notice, PeerSilent, Ready
from mpq_worker.endpoint import ERRORS_PER_SECOND
from mpq_worker.errors import DropReason, Refusal
from mpq_worker.hub import ARRIVALS_AT_ONCE, ARRIVALS_PER_SECOND, DRAIN_TIME, MAX_OF_SITE, HubTunnel
from mpq_worker.mailbox import MAX_MESSAGES
from mpq_worker.peer import SLOW_IN_HANDSHAKE
from mpq_worker.quic.session import HELD_WHILE_SIGNING
from mpq_worker.tunnel import SiteTunnel
from tests.sim.conftest import HUB_INNER, SITE_INNER, World
from tests.sim.flood import SPOOFED, Flood, count_connections
from tests.sim.nodes import drops, peer_at, peer_of
from tests.sim.packets import initial, packet


def test_a_handshake_that_trickles_ends_in_time(world: World) -> None:
    """It keeps its connection busy with what is good but never enough."""
    hub = world.add_hub()
    site = world.add_site()
    site.core.handle_udp = lambda *args: None  # type: ignore[method-assign]  # it hears nothing, and repeats itself
    world.net.run(HELLO_TIME + 0.2)
    assert len(hub.core._peers) >= 1
    site.alive = False
    world.net.run(HELLO_TIME)
    assert not hub.core._peers
    assert hub.core.report(world.net.now).refusals[Refusal.TIMEOUT] >= 1


def test_a_handshake_has_only_so_many_packets(world: World) -> None:
    """Who begins one can send more to its connection ID, 0.6 ms each, without a token or a place for each."""
    hub = world.add_hub()
    cid = b"\x05strange"
    keys = CryptoPair()
    keys.setup_initial(cid, is_client=True, version=1)
    begun = b"\x06\x00\x10\x01\x00\x02\x00\x03\x03" + bytes(10)  # the first bytes of a ClientHello
    for number in range(1 + SLOW_IN_HANDSHAKE[1] + 50):
        data = initial(keys, cid, cid, b"\x01" * 1000 if number else begun, number)
        hub.core.handle_udp(data, SPOOFED, world.net.now)
        world.net.flush(hub)
    assert drops(world, hub) == {DropReason.CONTROL: 50}
    assert len(hub.core._peers) == 1


def test_a_hello_in_crumbs_ends_in_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte of a message every 100 ms is no Hello, however long it goes on."""
    monkeypatch.setattr(SiteTunnel, "_on_connected", lambda *args: None)
    monkeypatch.setattr(tunnel, "ATTEMPT_TIME", (3600.0, 3600.0))
    hub, site = world.add_hub(), world.add_site()
    world.net.run(0.1)
    peer = peer_at(hub, site.addr[1])
    mine = next(iter(site.core._peers))

    def crumb() -> None:
        if mine in site.core._peers:
            mine.session.send_control(b"\x10")
            site.core._dirty[mine] = None
            world.net.flush(site)

    world.net.every(0.1, world.net.now + 10, crumb)
    world.net.run(HELLO_TIME - 0.2)
    assert peer in hub.core._peers
    world.net.run(0.3)
    assert peer not in hub.core._peers
    assert hub.core.report(world.net.now).refusals == {Refusal.TIMEOUT: 1}


def test_packets_beyond_what_waits_for_a_signature_are_counted(world: World) -> None:
    hub = world.add_hub()
    hub.signs = False
    data = Flood(world, hub).initial()
    for _ in range(1 + HELD_WHILE_SIGNING + 5):
        hub.core.handle_udp(data, SPOOFED, world.net.now)
    assert drops(world, hub) == {DropReason.SIGNING: 5}


def test_messages_beyond_what_the_supervisor_takes_are_counted(world: World) -> None:
    hub = world.add_hub()
    hub.core._tell(Notice("a", "b"))
    for _ in range(MAX_MESSAGES + 4):
        hub.core._tell(Notice("a", "b"))
    assert drops(world, hub)[DropReason.MESSAGE] == 5


def test_icmp_errors_have_a_budget(world: World) -> None:
    world.add_hub()
    site = world.add_site()
    world.net.run(0.2)
    for _ in range(3 * ERRORS_PER_SECOND):
        world.net.send_packet(
            site, packet(SITE_INNER, HUB_INNER, size=1500).replace(b"\x00\x00\x40\x11", b"\x40\x00\x40\x11")
        )
    assert drops(world, site) == {DropReason.TOO_BIG: 3 * ERRORS_PER_SECOND}
    assert len(site.delivered) == ERRORS_PER_SECOND


def test_packets_of_ours_that_no_key_opens_are_counted(world: World) -> None:
    hub, site = world.add_hub(), world.add_site()
    world.net.run(0.3)
    before = drops(world, hub), drops(world, site)
    assert before == ({}, {})
    for node, other in ((hub, site), (site, hub)):
        cid = peer_of(node).session.cids[0]
        for _ in range(3):
            node.core.handle_udp(b"\x41" + cid + bytes(60), other.addr, world.net.now)
        assert drops(world, node) == {DropReason.UNOPENED: 3}
    site.core.handle_udp(b"\x41" + b"\x05unknown" + bytes(60), hub.addr, world.net.now)  # not even a reset
    assert drops(world, site) == {DropReason.UNOPENED: 4}


def test_a_site_that_reconnects_all_the_time_has_few_connections(world: World) -> None:
    """However often the configuration is read again."""
    hub = world.add_hub()
    core = hub.core
    assert isinstance(core, HubTunnel)
    most = 0
    for number in range(40):
        core.handle_sites([msgspec.structs.replace(site) for site in world.entries], world.net.now)
        site = world.add_site(port=3000 + number)
        world.net.run(0.055)
        assert Ready() in site.messages or len(hub.core._peers)
        site.alive = False
        most = max(most, len(hub.core._peers))
    assert DRAIN_TIME / 0.055 > MAX_OF_SITE + 5  # without the bound there would be more
    assert most <= MAX_OF_SITE + 3  # the current one, the newest, and one that says goodbye


def test_a_site_that_connects_without_end_is_told_to_wait(world: World) -> None:
    """A handshake costs the hub CPU that is the others' too; what is refused takes places of its address for 5 s."""
    hub = world.add_hub()
    good = world.add_site("ship2", ("10.200.11.17",), port=46099)
    made = count_connections(hub)
    for number in range(300):
        site = world.add_site(port=3000 + number)
        world.net.run(0.01)
        world.net.at(world.net.now + 0.09, lambda site=site: setattr(site, "alive", False))  # type: ignore[misc]  # a lambda's default
    core = hub.core
    assert isinstance(core, HubTunnel)
    refused = core.report(world.net.now).refusals[Refusal.OFTEN]
    assert world.limits.per_source <= refused <= world.limits.per_source + world.limits.retry_from
    assert made() - refused <= ARRIVALS_AT_ONCE + 3 * ARRIVALS_PER_SECOND + 10  # some are on their way
    assert drops(world, hub)[DropReason.LIMIT] > 100
    assert [m for m in good.messages if isinstance(m, PeerSilent)] == []
    world.net.run(HELLO_TIME)
    site = world.add_site(port=4000)
    world.net.run(0.2)
    assert Ready() in site.messages
