"""What the hub counts, forgets and survives when its guests are many, slow, rude or late."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from mpq_worker.admission import HELLO_TIME
from mpq_worker.contract import Limits, Notice, Ready
from mpq_worker.errors import PeerFault, Refusal
from mpq_worker.hub import HubTunnel
from mpq_worker.peer import Peer
from mpq_worker.tunnel import SiteTunnel
from mpq_worker.wire import Welcome, encode_control
from tests.sim.conftest import SITE_INNER, World, unsigned
from tests.sim.network import Node
from tests.sim.nodes import peer_of
from tests.sim.packets import packet
from tests.unit.sessions import forge


def core(hub: Node) -> HubTunnel:
    assert isinstance(hub.core, HubTunnel)
    return hub.core


def raw_control(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    """Sites say `data` on the control stream, once they are connected."""

    def say(self: SiteTunnel, peer: Peer, binding: bytes, now: float) -> None:
        peer.session.send_control(data)

    monkeypatch.setattr(SiteTunnel, "_on_connected", say)


def framed(body: bytes) -> bytes:
    return len(body).to_bytes(2, "big") + body


@pytest.mark.parametrize(
    ("control", "refusal"),
    [
        pytest.param(unsigned((1000,) * 2500), Refusal.VERSION, id="2500 versions"),
        pytest.param(framed(b"\x81\xa4type\xa5hel\xff\xfe"), Refusal.MALFORMED, id="no UTF-8"),
        pytest.param(framed(b"\x82\xa4type\xa5hello\xa1x" + b"\x91" * 8000), Refusal.MALFORMED, id="nested"),
        pytest.param(
            framed(msgspec.msgpack.encode({"type": "hello", "claims": "x" * 8000})), Refusal.MALFORMED, id="no claims"
        ),
        pytest.param(encode_control(Welcome(1, ("\n" * 8000,))), Refusal.MALFORMED, id="a Welcome from a site"),
        pytest.param(framed(b"\xc1") * 100, Refusal.MALFORMED, id="a hundred times garbage"),
    ],
)
def test_a_stranger_is_refused_once(
    world: World, monkeypatch: pytest.MonkeyPatch, control: bytes, refusal: Refusal
) -> None:
    """No key is needed for any of this; each once stopped the worker or was counted again and again."""
    hub = world.add_hub()
    raw_control(monkeypatch, control)
    site = world.add_site()
    world.net.run(0.3)
    assert hub.core.report(world.net.now).refusals == {refusal: 1}
    (line,) = [m.text for m in hub.messages if isinstance(m, Notice) and m.kind == "refused"]
    assert line.isprintable()
    assert len(line) < 300
    (reason,) = [m.text for m in site.messages if isinstance(m, Notice) and m.kind == "connect"]
    assert reason.startswith(f"{refusal}: ")


def test_a_certificate_of_no_known_version(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = world.add_hub()
    good = world.hub_credential.certificate.public_bytes(Encoding.DER)
    version = bytes.fromhex("a003020102")
    raw_control(monkeypatch, unsigned(certificate=good.replace(version, version[:-1] + b"\x05")))
    world.add_site()
    world.net.run(0.3)
    assert hub.core.report(world.net.now).refusals == {Refusal.CERTIFICATE: 1}


def test_many_refused_frames_in_one_packet_are_one_refusal(world: World) -> None:
    hub, site = world.add_hub(), world.add_site()
    world.net.run(0.3)
    probes = b"\x31\x02\x01\x00" * 200  # DATAGRAM frames with a probe of two bytes
    hub.core.handle_udp(forge(peer_of(site).session, probes), site.addr, world.net.now)
    world.net.flush(hub)
    assert hub.core.report(world.net.now).refusals == {Refusal.MALFORMED: 1}
    assert not hub.core._peers


def test_nothing_is_admitted_after_a_refusal(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Hello of an unknown version and, before the close is sent, one that is good."""
    hub = world.add_hub()
    good: list[tuple[Peer, bytes]] = []
    hear = HubTunnel._on_control

    def bad_first(self: HubTunnel, peer: Peer, data: bytes, now: float) -> None:
        good.append((peer, data))
        hear(self, peer, unsigned((99,)), now)

    monkeypatch.setattr(HubTunnel, "_on_control", bad_first)
    refuse = HubTunnel._on_fault

    def then_good(self: HubTunnel, peer: Peer, fault: PeerFault, now: float) -> None:
        refuse(self, peer, fault, now)
        hear(self, *good[-1], now)

    monkeypatch.setattr(HubTunnel, "_on_fault", then_good)
    site = world.add_site()
    world.net.run(0.3)
    assert good
    assert not [m for m in hub.messages if isinstance(m, Notice) and m.kind == "site"]
    assert hub.core.report(world.net.now).refusals == {Refusal.VERSION: 1}
    assert Ready() not in site.messages
    assert not core(hub)._current
    assert core(hub)._routes.lookup(bytes((10, 200, 11, 5))) is None


def test_only_those_without_a_hello_count_as_unproven(
    make_world: Callable[[], World], monkeypatch: pytest.MonkeyPatch
) -> None:
    """More sites than that limit come back at once while one stranger is silent: all are let in."""
    world = make_world()
    world.limits = Limits(handshakes=8)
    for number in range(20):
        world.entry(f"ship{number}", f"10.201.0.{number + 1}")
    hub = world.add_hub()
    with monkeypatch.context() as patch:
        patch.setattr(SiteTunnel, "_on_connected", lambda *args: None)
        patch.setattr("mpq_worker.tunnel.ATTEMPT_TIME", (3600.0, 3600.0))
        mute = world.add_site("mute", ("10.202.0.1",), port=999)
        world.net.run(0.1)
        mute.alive = False
    for number in range(20):
        world.add_site(f"ship{number}", (f"10.201.0.{number + 1}",), port=1000 + number)
        world.net.run(0.02)
    world.net.run(0.1)
    report = hub.core.report(world.net.now)
    assert len(report.sites) == 20
    assert report.drops == {}
    assert len(core(hub)._admission) == 1
    world.net.run(HELLO_TIME)
    assert not len(core(hub)._admission)
    assert hub.core.report(world.net.now).refusals == {Refusal.TIMEOUT: 1}


def test_stop_does_not_wait_for_signatures(world: World) -> None:
    hub = world.add_hub()
    hub.signs = False
    for number in range(5):
        world.add_site(port=2000 + number)
    world.net.run(0.1)
    assert len(hub.core._peers) == 5
    hub.core.handle_stop(world.net.now)
    hub.core.poll_transmit(world.net.now)
    assert hub.core.stopped
    assert not hub.core._signing


def test_a_first_packet_that_comes_twice_is_no_second_guest(world: World) -> None:
    """Networks duplicate, and a lost answer makes the site repeat itself."""
    hub = world.add_hub()
    site = world.add_site()
    site.capture = True
    world.net.run(0.3)
    hub.core.handle_udp(site.captured[0], site.addr, world.net.now)
    world.net.flush(hub)
    assert len(hub.core._peers) == 1
    world.net.run(HELLO_TIME + 1)
    assert hub.core.report(world.net.now).refusals == {}


def test_the_index_holds_live_connections_only(world: World) -> None:
    hub = world.add_hub()
    for number in range(8):  # each takes over from the one before, which was killed
        site = world.add_site(port=3000 + number)
        world.net.run(0.1)
        site.alive = False
    world.net.run(3.0)
    assert len(hub.core._peers) == 1
    assert set(hub.core._by_cid.values()) == hub.core._peers
    assert len(core(hub)._guests) == 1
    world.net.run(60.0)
    assert not hub.core._peers
    assert not hub.core._by_cid
    assert not core(hub)._guests
    assert not core(hub)._current
    world.net.send_packet(hub, packet("10.200.11.254", "10.200.11.5"))
    assert hub.core.report(world.net.now).drops == {"no_route": 1}


def test_an_address_that_is_asked_for_again_and_again_is_one(world: World) -> None:
    """What is told of a site is no longer for it."""
    hub, site = world.add_hub(), world.add_site(inner=(SITE_INNER,) * 50)
    world.net.run(0.2)
    assert Ready() in site.messages
    assert core(hub)._guests[peer_of(hub)].inner == (SITE_INNER,)
