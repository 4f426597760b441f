"""Floods: what first packets of strangers can take of a hub, and what they can make it send to others."""

from __future__ import annotations

import gc
import os

import pytest
from aioquic.buffer import Buffer
from aioquic.quic.crypto import CryptoPair
from aioquic.quic.packet import QuicPacketType, pull_quic_header

from mpq_worker.admission import HELLO_TIME
from mpq_worker.contract import Notice, Ready
from mpq_worker.errors import DropReason, Refusal
from mpq_worker.hub import HubTunnel
from mpq_worker.quic.connection import Connection
from tests.sim.conftest import HUB_INNER, World
from tests.sim.flood import SPOOFED, Flood, count_connections
from tests.sim.nodes import drops, numbers, talk
from tests.sim.packets import initial


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
    assert not len(hub.core._admission)  # type: ignore[union-attr]  # a hub's
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
