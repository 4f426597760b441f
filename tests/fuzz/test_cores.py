"""Bytes from strangers into both cores: nothing is raised, nothing grows, every drop is counted.

Hypothesis without a database and derandomized, so that a run repeats; inputs worth keeping are `@example`s.
"""

from __future__ import annotations

from ipaddress import ip_address

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mpq_worker.contract import Ready
from mpq_worker.errors import PeerFault
from mpq_worker.hub import HubTunnel
from mpq_worker.inner import addresses
from mpq_worker.peer import Peer
from mpq_worker.tunnel import SiteTunnel
from mpq_worker.wire import ControlReader
from tests.sim.conftest import HUB_INNER, World
from tests.sim.network import Node
from tests.sim.packets import packet

STRANGER = ("192.0.2.99", 999)
RUNS = settings(
    max_examples=300,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def connected() -> tuple[World, Node, Node]:
    world = World()
    world.entry("ship1", "10.200.11.5")
    hub, site = world.add_hub(), world.add_site()
    site.capture = hub.capture = True
    world.net.run(0.3)
    assert Ready() in site.messages
    return world, hub, site


WORLD, HUB, SITE = connected()
SEEN = HUB.captured + SITE.captured


def peer_of(node: Node) -> Peer:
    (peer,) = node.core._peers
    return peer


def drops(node: Node) -> int:
    return sum(node.core.report(WORLD.net.now).drops.values())


def still_works() -> None:
    """The pair still carries a packet each way."""
    HUB.delivered.clear()
    SITE.delivered.clear()
    WORLD.net.send_packet(SITE, packet("10.200.11.5", HUB_INNER, 1))
    WORLD.net.send_packet(HUB, packet(HUB_INNER, "10.200.11.5", 2))
    WORLD.net.run(0.1)
    assert (len(HUB.delivered), len(SITE.delivered)) == (1, 1)


@RUNS
@given(data=st.binary(max_size=1600))
@example(data=b"")
@example(data=b"\xc0\x00\x00\x00\x01\xff")
@example(data=b"\x40" + bytes(8))
def test_datagrams_of_strangers(data: bytes) -> None:
    before = drops(HUB)
    for node in (HUB, SITE):
        node.core.handle_udp(data, STRANGER, WORLD.net.now)
        WORLD.net.flush(node)
    assert drops(HUB) == before + 1
    assert len(HUB.core._peers) == 1


@RUNS
@given(
    which=st.integers(0, len(SEEN) - 1),
    where=st.integers(0, 1499),
    mask=st.integers(1, 255),
    cut=st.integers(0, 1499),
)
def test_datagrams_that_were_tampered_with(which: int, where: int, mask: int, cut: int) -> None:
    data = bytearray(SEEN[which])
    data[where % len(data)] ^= mask
    for node in (HUB, SITE):
        for mangled in (bytes(data), bytes(data[: cut % len(data)])):
            node.core.handle_udp(mangled, STRANGER, WORLD.net.now)
            WORLD.net.flush(node)
    assert len(HUB.core._peers) <= 1 + WORLD.limits.handshakes


@RUNS
@given(data=st.binary(max_size=1600))
@example(data=b"\x45" + bytes(19))
@example(data=b"\x60" + bytes(39))
@example(data=packet("10.200.11.5", HUB_INNER, 3))
def test_packets_from_the_tun(data: bytes) -> None:
    """Each is either taken or dropped, and counted as what it was."""
    for node in (HUB, SITE):
        before, report = drops(node), node.core.report(WORLD.net.now)
        node.core.handle_packet(data, WORLD.net.now)
        WORLD.net.flush(node)
        taken = node.core.report(WORLD.net.now).packets_out - report.packets_out
        assert taken + drops(node) - before == 1


@RUNS
@given(payload=st.binary(max_size=1400))
@example(payload=b"")
@example(payload=b"\x00" + packet("10.200.11.5", HUB_INNER, 4))
@example(payload=b"\x00" + packet("10.200.11.17", HUB_INNER, 5))
def test_datagram_frames_of_a_site_gone_bad(payload: bytes) -> None:
    """Of whatever an admitted site puts into a frame, its own packets and no others reach the hub's TUN."""
    if payload[:1] in (b"\x01", b"\x02"):
        return  # probes of another length end the connection; test_frames has them
    own = ip_address("10.200.11.5").packed
    where = addresses(payload[1:]) if payload[:1] == b"\x00" else None
    WORLD.net.run(0.05)  # what an earlier test left on its way arrives
    HUB.delivered.clear()
    before = drops(HUB)
    peer_of(SITE).session.send_datagram(payload)
    SITE.core._dirty[peer_of(SITE)] = None
    WORLD.net.flush(SITE)
    WORLD.net.run(0.05)
    wanted = [payload[1:]] if where is not None and where.source == own else []
    assert [data for _, data in HUB.delivered] == wanted
    assert drops(HUB) - before == 1 - len(wanted)


def test_both_ends_survived() -> None:
    """Runs last: the pair that took all of the above is still the same pair."""
    WORLD.net.run(6.0)  # handshakes that came to nothing are forgotten
    assert isinstance(HUB.core, HubTunnel)
    assert isinstance(SITE.core, SiteTunnel)
    assert len(HUB.core._peers) == 1
    still_works()


@settings(RUNS, max_examples=60)
@given(data=st.binary(max_size=9000))
@example(data=b"\xff\xff")
@example(data=b"\x00\x00")
def test_control_stream_of_a_site_gone_bad(data: bytes) -> None:
    """After a good handshake, what is no message on the control stream ends that connection; half of one waits."""
    try:
        messages = ControlReader().feed(data)
    except PeerFault:
        expected = {"malformed": 1}
    else:
        expected = {"malformed": 1} if messages else {}
    world, hub, site = connected()
    peer_of(site).session.send_control(data)
    site.core._dirty[peer_of(site)] = None
    world.net.flush(site)
    world.net.run(0.2)
    assert hub.core.report(world.net.now).refusals == expected
