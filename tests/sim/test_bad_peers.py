"""Peers nobody should trust: each is refused by name and counted, and the good site beside it loses nothing."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from mpq_supervisor import pki
from mpq_worker.admission import HELLO_TIME
from mpq_worker.contract import Notice, PeerBack, PeerSilent, Ready, SiteEntry
from mpq_worker.errors import DropReason, Refusal
from mpq_worker.hub import HubTunnel
from mpq_worker.tunnel import SiteTunnel
from mpq_worker.wire import Hello, encode_control
from tests.sim.conftest import HUB_INNER, World, unsigned
from tests.sim.network import Node
from tests.sim.packets import number_of, packet


@pytest.fixture
def hub(world: World) -> Node:
    return world.add_hub()


@pytest.fixture
def good(world: World, hub: Node) -> Node:
    """ship2, connected, sending 100 packets/s all through the test."""
    site = world.add_site("ship2", ("10.200.11.17",), port=46099)
    world.net.run(0.2)
    return site


def attack(world: World, hub: Node, good: Node, seconds: float) -> HubTunnel:
    """Let time pass; assert that the good site lost nothing meanwhile."""
    total = int(seconds * 100)
    for number in range(total):
        when = world.net.now + number / 100
        world.net.at(when, lambda n=number: world.net.send_packet(good, packet("10.200.11.17", HUB_INNER, n)))  # type: ignore[misc]  # a lambda's default
    world.net.run(seconds + 0.2)
    received = [number_of(data) for _, data in hub.delivered if data[12:16] == bytes((10, 200, 11, 17))]
    assert received == list(range(total))
    assert isinstance(hub.core, HubTunnel)
    return hub.core


def refusal_lines(hub: Node) -> list[str]:
    return [m.text for m in hub.messages if isinstance(m, Notice) and m.kind == "refused"]


def expect(world: World, hub: Node, refusal: Refusal, times: int = 1) -> None:
    report = hub.core.report(world.net.now)
    assert report.refusals == {refusal: times}
    assert DropReason.HANDSHAKE not in report.drops, "it is counted once"
    assert len(refusal_lines(hub)) == times
    assert f": {refusal}: " in refusal_lines(hub)[0]


def test_another_authority(world: World, hub: Node, good: Node) -> None:
    world.add_site("ship1", credential=pki.issue_site(pki.issue_authority("evil"), "ship1"))
    attack(world, hub, good, 0.5)
    expect(world, hub, Refusal.CERTIFICATE)


def test_expired_certificate(world: World, hub: Node, good: Node) -> None:
    begin = datetime.now(UTC) - timedelta(days=10)
    expired = pki.issue_site(world.authority, "ship1", begin=begin, lifetime=timedelta(days=5))
    site = world.add_site("ship1", credential=expired)
    attack(world, hub, good, 0.5)
    expect(world, hub, Refusal.CERTIFICATE)
    assert "expired" in refusal_lines(hub)[0]
    assert any(isinstance(m, PeerSilent) and "expired" in m.reason for m in site.messages)
    assert Ready() not in site.messages


def test_certificate_of_the_future_is_a_matter_of_clocks(world: World, hub: Node, good: Node) -> None:
    future = pki.issue_site(world.authority, "ship1", begin=datetime.now(UTC) + timedelta(days=1))
    site = world.add_site("ship1", credential=future)
    attack(world, hub, good, 0.5)
    expect(world, hub, Refusal.CLOCK)
    world.wall += 2 * 86_400
    world.net.run(3.0)
    assert Ready() in site.messages


def test_hub_certificate_cannot_be_a_site(world: World, hub: Node, good: Node) -> None:
    world.add_site("ship1", credential=world.hub_credential)
    attack(world, hub, good, 0.5)
    expect(world, hub, Refusal.CERTIFICATE)


def test_unknown_identity(world: World, hub: Node, good: Node) -> None:
    world.add_site("ship3")
    attack(world, hub, good, 0.5)
    expect(world, hub, Refusal.IDENTITY)


def test_address_of_another_site(world: World, hub: Node, good: Node) -> None:
    world.add_site("ship1", inner=("10.200.11.17",))
    attack(world, hub, good, 0.5)
    expect(world, hub, Refusal.ADDRESS)


def test_signature_by_another_key(world: World, hub: Node, good: Node) -> None:
    """Somebody has ship1's certificate, which is no secret, but not its key."""
    site = world.add_site("ship1")
    site.key = pki.issue_site(world.authority, "ship1").key
    attack(world, hub, good, 0.5)
    expect(world, hub, Refusal.SIGNATURE)


def test_replayed_hello(world: World, hub: Node, good: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Hello that was good on one connection is worth nothing on another."""
    recorded: list[bytes] = []
    send = SiteTunnel._on_signature

    def record(self: SiteTunnel, peer: object, signature: bytes, now: float) -> None:
        recorded.append(encode_control(Hello(self._claims[peer], signature)))  # type: ignore[index]  # it is a Peer
        send(self, peer, signature, now)  # type: ignore[arg-type]  # it is a Peer

    monkeypatch.setattr(SiteTunnel, "_on_signature", record)
    honest = world.add_site("ship1")
    world.net.run(0.2)
    assert Ready() in honest.messages

    def replay(self: SiteTunnel, peer: object, signature: bytes, now: float) -> None:
        peer.session.send_control(recorded[0])  # type: ignore[attr-defined]  # it is a Peer

    monkeypatch.setattr(SiteTunnel, "_on_signature", replay)
    thief = world.add_site("ship1", port=46666)
    attack(world, hub, good, 0.5)
    expect(world, hub, Refusal.SIGNATURE)
    assert Ready() not in thief.messages
    world.net.send_packet(hub, packet(HUB_INNER, "10.200.11.5", 5))
    world.net.run(0.1)
    assert [number_of(data) for _, data in honest.delivered] == [5]


def test_hello_without_certificate(world: World, hub: Node, good: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    def bare(self: SiteTunnel, peer: object, binding: bytes, now: float) -> None:
        peer.session.send_control(unsigned())  # type: ignore[attr-defined]  # it is a Peer

    monkeypatch.setattr(SiteTunnel, "_on_connected", bare)
    world.add_site("ship1")
    attack(world, hub, good, 0.5)
    expect(world, hub, Refusal.CERTIFICATE)


def test_no_hello_at_all(world: World, hub: Node, good: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SiteTunnel, "_on_connected", lambda *args: None)
    monkeypatch.setattr("mpq_worker.tunnel.ATTEMPT_TIME", (3600.0, 3600.0))
    world.add_site("ship1")
    attack(world, hub, good, HELLO_TIME + 0.5)
    expect(world, hub, Refusal.TIMEOUT)


def test_data_before_hello(world: World, hub: Node, good: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SiteTunnel, "_on_connected", lambda self, peer, binding, now: self._activate(peer, now))
    site = world.add_site("ship1")
    world.net.run(0.2)
    world.net.send_packet(site, packet("10.200.11.5", HUB_INNER, 1))
    core = attack(world, hub, good, 0.5)
    assert core.report(world.net.now).drops == {DropReason.UNAUTHENTICATED: 1}


def test_inner_source_of_another_site(world: World, hub: Node, good: Node) -> None:
    site = world.add_site("ship1")
    world.net.run(0.2)
    for source in ("10.200.11.17", "172.16.2.9", "8.8.8.8"):
        world.net.send_packet(site, packet(source, HUB_INNER, 1))
    core = attack(world, hub, good, 0.5)
    assert core.report(world.net.now).drops == {DropReason.SOURCE: 3}
    assert len([m for m in hub.messages if isinstance(m, Notice) and m.kind == "source"]) == 1


def test_routed_prefix_is_the_sites_own(world: World, hub: Node, good: Node) -> None:
    world.net.send_packet(good, packet("172.16.2.9", HUB_INNER, 99))
    world.net.run(0.1)
    assert number_of(hub.delivered[-1][1]) == 99
    world.net.send_packet(hub, packet(HUB_INNER, "172.16.2.200", 7))
    world.net.send_packet(hub, packet(HUB_INNER, "172.16.3.1", 8))
    world.net.run(0.1)
    assert [number_of(data) for _, data in good.delivered] == [7]
    assert hub.core.report(world.net.now).drops == {DropReason.NO_ROUTE: 1}


def test_wrong_hub_is_refused_by_the_site(world: World, hub: Node, good: Node) -> None:
    other_ca = world.add_site("ship1", ca=pki.issue_authority("another"), port=46001)
    other_name = world.add_site("ship1", hub_name="another.test", port=46002)
    attack(world, hub, good, 0.5)
    for site in (other_ca, other_name):
        assert Ready() not in site.messages
        assert [m for m in site.messages if isinstance(m, PeerSilent)]


def test_garbage_of_every_length(world: World, hub: Node, good: Node) -> None:
    noise = random.Random(7)
    for length in range(1501):
        for first in (noise.randrange(256), 0xC0, 0x40):
            data = bytes((first,)) + noise.randbytes(length - 1) if length else b""
            hub.core.handle_udp(data, ("192.0.2.1", 9), world.net.now)
            world.net.flush(hub)
    core = attack(world, hub, good, 0.5)
    drops = core.report(world.net.now).drops
    assert set(drops) <= {DropReason.MALFORMED, DropReason.UNKNOWN_CONNECTION, DropReason.LIMIT}
    assert sum(drops.values()) == 1501 * 3
    assert len(core._peers) == 1


def test_handshakes_in_progress_are_bounded(world: World, hub: Node, good: Node) -> None:
    hub.signs = False  # nobody gets further than the first flight
    for port in range(100):
        world.add_site("ship1", port=20_000 + port)
    core = attack(world, hub, good, 0.5)
    assert len(core._peers) == world.limits.per_source + world.limits.retry_from + 1
    assert core.report(world.net.now).drops[DropReason.LIMIT] > 50


@pytest.mark.parametrize(("known", "why"), [(True, Refusal.REVOKED), (False, Refusal.IDENTITY)])
def test_revoked_or_removed_by_reload(world: World, hub: Node, good: Node, known: bool, why: Refusal) -> None:
    """`why` is what it is told whenever it comes again."""
    site = world.add_site("ship1")
    world.net.run(0.5)
    assert Ready() in site.messages
    assert isinstance(hub.core, HubTunnel)
    others = [entry for entry in world.entries if entry.name != "ship1"]
    hub.core.handle_sites([*others, *[SiteEntry("ship1", "mpq://site/ship1", ())] * known], world.net.now)
    world.net.flush(hub)
    attack(world, hub, good, 0.5)
    assert Refusal.REVOKED in hub.core.report(world.net.now).refusals
    world.net.send_packet(hub, packet(HUB_INNER, "10.200.11.5"))
    assert hub.core.report(world.net.now).drops == {DropReason.NO_ROUTE: 1}
    world.net.run(2.0)
    assert set(hub.core.report(world.net.now).refusals) == {Refusal.REVOKED, why}
    lines = [message.text for message in site.messages if isinstance(message, Notice)]
    assert f"{why}: " in lines[-1], "the operator of the site reads the same word"
    assert PeerBack() not in site.messages  # it was never back, however often it tried


def test_unchanged_sites_survive_a_reload(world: World, hub: Node, good: Node) -> None:
    assert isinstance(hub.core, HubTunnel)
    entries = (*world.entries, SiteEntry("ship9", "mpq://site/ship9", ("10.200.11.25",)))
    world.net.at(world.net.now + 0.2, lambda: hub.core.handle_sites(entries, world.net.now))  # type: ignore[union-attr]  # a hub's
    core = attack(world, hub, good, 0.5)
    assert core.report(world.net.now).refusals == {}


def test_prefixes_of_a_site_change_without_its_connection(world: World, hub: Node, good: Node) -> None:
    """Also from one site to another, and not to one that stands by; another address cuts off."""
    other = world.add_site("ship1")
    world.add_site("ship2", ("10.200.11.17",), port=46098, standby=True)
    world.net.run(0.5)
    core = hub.core
    assert isinstance(core, HubTunnel)

    def change(prefixes: dict[str, tuple[str, ...]]) -> None:
        sites = [msgspec.structs.replace(one, prefixes=prefixes.get(one.name, ())) for one in world.entries]
        core.handle_sites(sites, world.net.now)
        world.net.flush(hub)

    def gets(address: str) -> str:
        before = {"ship2": len(good.delivered), "ship1": len(other.delivered)}
        world.net.send_packet(hub, packet(HUB_INNER, address))
        world.net.run(0.2)
        after = {"ship2": len(good.delivered), "ship1": len(other.delivered)}
        return ", ".join(name for name in before if after[name] > before[name])

    def may_send(site: Node, address: str) -> bool:
        before = len(hub.delivered)
        world.net.send_packet(site, packet(address, HUB_INNER))
        world.net.run(0.2)
        return len(hub.delivered) > before

    lan, new = "172.16.2.9", "172.17.0.9"
    assert (gets(lan), gets(new), may_send(good, lan), may_send(good, new)) == ("ship2", "", True, False)
    change({"ship2": ("172.16.2.0/24", "172.17.0.0/16")})
    assert (gets(lan), gets(new), may_send(good, lan), may_send(good, new)) == ("ship2", "ship2", True, True)
    change({"ship1": ("172.16.2.0/24",), "ship2": ("172.17.0.0/16",)})
    assert (gets(lan), gets(new), may_send(good, lan), may_send(other, lan)) == ("ship1", "ship2", False, True)
    change({})
    assert (gets(lan), gets(new), may_send(good, new), may_send(other, lan)) == ("", "", False, False)
    attack(world, hub, good, 0.5)
    assert core.report(world.net.now).refusals == {}
    assert len(core._peers) == 3
    moved = [msgspec.structs.replace(one, inner=("10.200.11.99",)) for one in world.entries]
    core.handle_sites(moved, world.net.now)
    assert core.report(world.net.now).refusals == {Refusal.REVOKED: 3}


def test_spoofed_packets_do_not_move_a_connection(world: World, hub: Node, good: Node) -> None:
    """A packet of the site, copied by somebody else's address, must not divert the return traffic for good."""
    good.capture = True
    attack(world, hub, good, 0.3)
    for data in good.captured[-5:]:
        hub.core.handle_udp(data, ("192.0.2.66", 6666), world.net.now)
        world.net.flush(hub)
    for number in range(20):
        world.net.send_packet(hub, packet(HUB_INNER, "10.200.11.17", number))
    world.net.run(0.5)
    assert [number_of(data) for _, data in good.delivered] == list(range(20))
