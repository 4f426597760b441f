"""Two neighbouring releases at the ends of a tunnel, through a handshake, traffic and planned restarts of both ends.

The last release is this one's core with the frozen messages; the next one says things that nobody knows yet.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from mpq_worker import hub, tunnel, wire
from mpq_worker.contract import Notice, Ready, TrafficClass, slot_of
from mpq_worker.errors import Refusal
from mpq_worker.wire import Claims, Control, ControlReader
from tests.frozen import release_1 as last
from tests.sim.conftest import HUB_ADDRESS, World
from tests.sim.network import Port
from tests.sim.test_restart import SITES, Restart, Traffic, of, restart_hub, restart_site

End = Any
"""The module of one end's core: `tunnel` or `hub`."""
Release = Callable[[pytest.MonkeyPatch, End], None]


def last_release(patch: pytest.MonkeyPatch, end: End) -> None:
    """`end` says and understands only what the last release does."""

    def through(data: bytes, kind: Any) -> bytes:
        return msgspec.msgpack.encode(msgspec.msgpack.decode(data, type=kind))

    class Reader(ControlReader):
        def feed(self, data: bytes) -> list[Control]:
            heard = []
            for message in super().feed(data):
                body = through(msgspec.msgpack.encode(message), last.Control)
                heard.append(msgspec.msgpack.decode(body, type=Control))
            return heard

    patch.setattr(end, "VERSIONS", last.VERSIONS)
    patch.setattr(end, "ControlReader", Reader)
    patch.setattr(
        end, "encode_control", lambda message: framed(through(wire.encode_control(message)[2:], last.Control))
    )
    if end is tunnel:
        patch.setattr(end, "encode_claims", lambda claims: through(wire.encode_claims(claims), last.Claims))
    else:
        patch.setattr(end, "decode_claims", lambda data: wire.decode_claims(through(data, last.Claims)))


def next_release(patch: pytest.MonkeyPatch, end: End, *, by: int = 1) -> None:
    """`end` has a field more in everything it says, a message more before each, and a version more."""
    newest = wire.VERSIONS[0] + by

    def more(message: Any) -> bytes:
        return msgspec.msgpack.encode({**msgspec.to_builtins(message, builtin_types=(bytes,)), "colour": "blue"})

    def encode(message: Control) -> bytes:
        return framed(msgspec.msgpack.encode({"type": "later", "n": [1]})) + framed(more(message))

    def claims(message: Claims) -> bytes:
        return more(msgspec.structs.replace(message, features=(*message.features, "later")))

    patch.setattr(end, "VERSIONS", (newest, newest - 1))
    patch.setattr(end, "encode_control", encode)
    if end is tunnel:
        patch.setattr(end, "encode_claims", claims)


@pytest.mark.parametrize("release", [last_release, next_release])
@pytest.mark.parametrize("end", [tunnel, hub])
def test_a_neighbour_at_one_end(world: World, monkeypatch: pytest.MonkeyPatch, end: End, release: Release) -> None:
    """Nothing is lost, restarts included: these are what needs `Take`, `Move` and `Moved`."""
    release(monkeypatch, end)
    node = world.add_hub()
    world.net.ports[HUB_ADDRESS] = Port({slot_of(TrafficClass.BULK, 0): node}, node)
    there = of(node)
    sites = {n: of(world.add_site(n, (inner,), port=46000 + i)) for i, (n, inner) in enumerate(SITES.items())}
    world.net.run(0.5)
    assert all(Ready() in tun.nodes[0].messages for tun in sites.values())
    traffic = Traffic(world, there, sites)
    restarts: list[Restart] = []
    world.net.at(world.net.now + 0.3, lambda: restarts.append(restart_site(world, sites["ship1"], 47000)))
    world.net.at(world.net.now + 1.8, lambda: restarts.append(restart_hub(world, there, 1)))
    traffic.run(3.3)
    traffic.check()
    assert [node.alive for node in (*sites["ship1"].nodes, *there.nodes)] == [False, True] * 2
    assert all(tun.nodes[-1].core.report(world.net.now).reconnects == 0 for tun in sites.values())


@pytest.mark.parametrize("end", [tunnel, hub])
def test_two_releases_away_is_refused_by_name(world: World, monkeypatch: pytest.MonkeyPatch, end: End) -> None:
    next_release(monkeypatch, end, by=2)
    node, site = world.add_hub(), world.add_site()
    world.net.run(0.5)
    assert node.core.report(world.net.now).refusals == {Refusal.VERSION: 1}
    (line,) = [m.text for m in site.messages if isinstance(m, Notice) and m.kind == "connect"]
    ours, theirs = ("(3, 2)", "(1,)") if end is hub else ("(1,)", "(3, 2)")
    assert line == f"version: we speak versions {ours}, the site {theirs}"


def test_a_hub_that_chooses_what_was_not_offered(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        hub, "encode_control", lambda message: wire.encode_control(msgspec.structs.replace(message, version=7))
    )
    world.add_hub()
    site = world.add_site()
    world.net.run(0.5)
    assert Ready() not in site.messages
    (line,) = [m.text for m in site.messages if isinstance(m, Notice) and m.kind == "connect"]
    assert line == "version: we speak versions (1,), the hub 7"


def framed(body: bytes) -> bytes:
    """A control message on its stream."""
    return len(body).to_bytes(2, "big") + body
