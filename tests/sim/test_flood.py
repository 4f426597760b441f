"""Floods and abuse: what strangers can take of a hub, and what they can make it send to others."""

from __future__ import annotations

import gc
import os
from collections import Counter
from collections.abc import Callable

import pytest
from aioquic.buffer import Buffer
from aioquic.quic.crypto import CryptoPair
from aioquic.quic.packet import QuicPacketType, pull_quic_header

from mpq_supervisor import pki
from mpq_worker import tunnel
from mpq_worker.admission import HELLO_TIME
from mpq_worker.contract import Notice, PeerSilent, Ready
from mpq_worker.endpoint import ERRORS_PER_SECOND
from mpq_worker.errors import DropReason, Refusal
from mpq_worker.hub import ARRIVALS_AT_ONCE, ARRIVALS_PER_SECOND, DRAIN_TIME, MAX_OF_SITE, HubTunnel
from mpq_worker.mailbox import MAX_MESSAGES
from mpq_worker.peer import SLOW_IN_HANDSHAKE, Peer
from mpq_worker.quic.connection import Connection
from mpq_worker.quic.establish import client_session
from mpq_worker.quic.session import HELD_WHILE_SIGNING, Session
from mpq_worker.tunnel import SiteTunnel
from tests.sim.conftest import HUB_ADDRESS, HUB_INNER, World
from tests.sim.network import Node
from tests.sim.packets import initial, number_of, packet

SITE_INNER = "10.200.11.5"
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


def peer_at(hub: Node, port: int) -> Peer:
    (peer,) = [peer for peer in hub.core._peers if peer.session.address[1] == port]
    return peer


def drops(world: World, node: Node) -> dict[str, int]:
    return node.core.report(world.net.now).drops


def talk(world: World, node: Node, source: str, destination: str, count: int) -> None:
    """`count` numbered packets, one every 10 ms."""
    for number in range(count):
        data = packet(source, destination, number)
        world.net.at(world.net.now + number / 100, lambda data=data: world.net.send_packet(node, data))  # type: ignore[misc]


def numbers(node: Node) -> list[int]:
    return [number_of(data) for _, data in node.delivered]


# ---------------------------------------------------------------- Initials


def test_sites_connect_and_carry_on_under_a_flood_of_initials(world: World) -> None:
    hub = world.add_hub()
    good = world.add_site("ship2", ("10.200.11.17",), port=46099)
    world.net.run(0.2)
    flood = Flood(world, hub)
    flood.start(200, 2.0)
    talk(world, good, "10.200.11.17", HUB_INNER, 200)
    world.net.run(0.5)
    site = world.add_site()
    begun = world.net.now
    while Ready() not in site.messages and world.net.now < begun + 1.0:
        world.net.run(0.01)
    assert world.net.now - begun < 0.15  # one round trip of 20 ms more than in peace, for the Retry
    world.net.run(1.9)
    assert numbers(hub) == list(range(200))
    core = hub.core
    assert isinstance(core, HubTunnel)
    assert len(core._peers) == 2 + world.limits.retry_from
    assert set(drops(world, hub)) == {DropReason.RETRY}
    assert drops(world, hub)[DropReason.RETRY] == len(flood.received) - world.limits.retry_from + 1
    assert core.report(world.net.now).refusals == {}


def test_a_flood_leaves_nothing_behind(world: World) -> None:
    """Neither connections nor books nor, with the collector off, memory; and two lines in the log, not hundreds."""
    hub = world.add_hub()
    flood = Flood(world, hub)
    gc.collect()
    before = connections()
    gc.disable()
    try:
        flood.start(100, 3 * HELLO_TIME)
        world.net.run(4 * HELLO_TIME)
        assert connections() == before
    finally:
        gc.enable()
    core = hub.core
    assert isinstance(core, HubTunnel)
    assert not core._peers
    assert not core._guests
    assert not core._by_cid
    assert not core._admission._sources
    timeouts = core.report(world.net.now).refusals[Refusal.TIMEOUT]
    assert timeouts == 3 * world.limits.retry_from
    lines = [m for m in hub.messages if isinstance(m, Notice)]
    assert len(lines) == 1


@pytest.mark.parametrize(
    "frames",
    [
        pytest.param(b"\x08\x00", id="STREAM"),
        pytest.param(b"\x1c\x00\x00\x00", id="CONNECTION_CLOSE"),
        pytest.param(b"\x01", id="PING"),
        pytest.param(b"\x00", id="PADDING"),
        pytest.param(None, id="no key opens it"),
    ],
)
def test_first_packets_that_end_what_they_begin_are_as_dear_as_others(world: World, frames: bytes | None) -> None:
    """They get no more connections than those that are left waiting, and each is counted."""
    hub = world.add_hub()
    good = world.add_site("ship2", ("10.200.11.17",), port=46099)
    world.net.run(0.2)
    flood = Flood(world, hub)
    made = count_connections(hub)
    world.net.every(1 / 200, world.net.now + 3.0, lambda: flood.hear(bare_initial(frames)))
    world.net.run(1.0)
    site = world.add_site()
    world.net.run(0.15)
    assert Ready() in site.messages
    world.net.run(1.9)
    assert made() == world.limits.retry_from + 1
    why = DropReason.MALFORMED if frames is None else DropReason.HANDSHAKE
    sent = len(flood.received)
    assert drops(world, hub) == {why: made() - 1, DropReason.RETRY: sent - (made() - 1) + 1}
    world.net.run(HELLO_TIME)
    assert len(hub.core._peers) == 2
    assert not len(hub.core._admission)  # type: ignore[union-attr]
    assert Ready() in good.messages


def test_a_proven_address_gets_only_so_many_handshakes_that_come_to_nothing(world: World) -> None:
    hub = world.add_hub()
    hub.signs = False
    sites = [world.add_site("ship1", port=20_000 + port) for port in range(world.limits.retry_from)]
    world.net.run(0.1)
    hub.signs = True
    for site in sites:
        site.alive = False
    made = count_connections(hub)
    for port in range(40):  # each closes when it sees who answers
        site = world.add_site("ship1", port=30_000 + port, hub_name="another.hub")
        world.net.run(0.08)
        site.alive = False
    assert made() == world.limits.per_source
    found = drops(world, hub)
    assert found == {DropReason.RETRY: 40, DropReason.HANDSHAKE: 32, DropReason.LIMIT: 8}


def bare_initial(frames: bytes | None) -> bytes:
    """A first packet with these frames and PADDING, or with what opens for nobody."""
    cid = b"\x05" + os.urandom(7)
    keys = CryptoPair()
    keys.setup_initial(cid if frames is not None else b"\x05" + bytes(7), is_client=True, version=1)
    return initial(keys, cid, cid, frames or b"", 0)


def count_connections(hub: Node) -> Callable[[], int]:
    """How many the hub makes from now on."""
    core, number = hub.core, 0
    assert isinstance(core, HubTunnel)
    accept = core._factory.accept

    def counted(original_destination_cid: bytes, retry_cid: bytes | None = None) -> Session:
        nonlocal number
        number += 1
        return accept(original_destination_cid, retry_cid)

    core._factory.accept = counted  # type: ignore[method-assign]
    return lambda: number


def connections() -> int:
    """A hub's, that are in memory and whole."""
    return sum(isinstance(o, Connection) and not getattr(o, "_is_client", True) for o in gc.get_objects())


def test_never_more_than_three_times_what_came(world: World) -> None:
    """To every address that is not proven, at any time: also when it asks again and again, or in pieces."""
    hub = world.add_hub()
    flood = Flood(world, hub)
    flood.start(50, 3.0)
    mute = flood.initial()
    for times in range(5):  # the same first packet again: the hub may repeat its answer
        world.net.at(world.net.now + 0.5 * times, lambda: send(mute))

    def send(data: bytes) -> None:
        flood.received[SPOOFED] += len(data)
        hub.core.handle_udp(data, SPOOFED, world.net.now)
        world.net.flush(hub)

    for _ in range(100):
        world.net.run(0.1)
        for address, sent in hub.bytes_to.items():
            assert sent <= 3 * flood.received[address]
    assert max(hub.bytes_to[address] / flood.received[address] for address in flood.received) > 1.5


@pytest.mark.parametrize("after", [0.5, 1.5, 4.9])
def test_goodbyes_are_part_of_it(world: World, after: float) -> None:
    """The hub is stopped when it has sent, and sent again, what it may; or there is room left."""
    hub = world.add_hub()
    data = Flood(world, hub).initial()
    hub.core.handle_udp(data, SPOOFED, world.net.now)
    world.net.flush(hub)
    world.net.run(after)
    before = hub.bytes_to[SPOOFED]
    hub.core.handle_stop(world.net.now)
    world.net.flush(hub)
    world.net.run(1.0)
    assert before >= 2 * len(data)
    assert hub.bytes_to[SPOOFED] <= 3 * len(data)
    assert (hub.bytes_to[SPOOFED] > before) is (before < 3 * len(data))
    assert hub.core.stopped


def test_a_token_of_another_address_a_used_one_and_an_old_one(world: World) -> None:
    hub = world.add_hub()
    flood = Flood(world, hub)
    for _ in range(world.limits.retry_from):
        flood.one()
    site = world.add_site()
    site.capture = True
    world.net.run(0.2)
    assert Ready() in site.messages
    (answer,) = [data for data in site.captured if is_initial_with_token(data)][:1]
    retries = drops(world, hub)[DropReason.RETRY]

    def replay(source: tuple[str, int]) -> int:
        before, peers = drops(world, hub).get(DropReason.TOKEN, 0), len(hub.core._peers)
        hub.core.handle_udp(answer, source, world.net.now)
        world.net.flush(hub)
        assert len(hub.core._peers) == peers
        return drops(world, hub).get(DropReason.TOKEN, 0) - before

    assert replay(site.addr) == 0  # it belongs to the connection that is there
    site.core.handle_stop(world.net.now)
    world.net.flush(site)
    world.net.run(1.0)
    assert replay(SPOOFED) == 1
    assert replay(site.addr) == 1
    world.net.run(60.0)
    assert replay(site.addr) == 1
    assert drops(world, hub)[DropReason.RETRY] == retries  # a bad token is worth no Retry


def is_initial_with_token(data: bytes) -> bool:
    if not data[0] & 0x80:
        return False
    header = pull_quic_header(Buffer(data=data), host_cid_length=8)
    return header.packet_type is QuicPacketType.INITIAL and bool(header.token)


def test_a_site_takes_no_forged_retry(world: World) -> None:
    """A Retry that somebody else made, without having seen the Initial, changes nothing."""
    hub = world.add_hub()
    site = world.add_site()
    world.net.run(0.001)
    cid = next(iter(site.core._by_cid))
    forged = b"\xf0\x00\x00\x00\x01\x08" + cid + b"\x08" + b"\x05forged!" + b"token" + bytes(16)
    site.core.handle_udp(forged, hub.addr, world.net.now)
    world.net.flush(site)
    world.net.run(0.2)
    assert Ready() in site.messages


# ---------------------------------------------------------------- slow and rude


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
    hub = world.add_hub()
    most = 0
    for number in range(40):
        site = world.add_site(port=3000 + number)
        world.net.run(0.055)
        assert Ready() in site.messages or number_of_peers(hub)
        site.alive = False
        most = max(most, number_of_peers(hub))
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
        world.net.at(world.net.now + 0.09, lambda site=site: setattr(site, "alive", False))  # type: ignore[misc]
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


def number_of_peers(hub: Node) -> int:
    return len(hub.core._peers)


def peer_of(node: Node) -> Peer:
    (peer,) = node.core._peers
    return peer
