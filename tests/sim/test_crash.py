"""What a hub worker's sudden death costs its sites, and two hosts that are one site."""

from __future__ import annotations

import msgspec
import pytest

from mpq_worker.contract import LostPeer, Notice, PeerSilent, Ready, SiteStatus
from mpq_worker.errors import Refusal
from mpq_worker.hub import HubTunnel
from tests.sim.conftest import HUB_ADDRESS, World
from tests.sim.network import Node

SITES = 20


def connected_sites(world: World, number: int) -> tuple[Node, list[Node]]:
    for n in range(number):
        world.entry(f"fleet{n}", f"10.201.0.{n + 1}")
    hub = world.add_hub()
    sites = [world.add_site(f"fleet{n}", (f"10.201.0.{n + 1}",), port=50_000 + n) for n in range(number)]
    world.net.run(1.0)
    assert all(Ready() in site.messages for site in sites)
    return hub, sites


def connections(hub: Node, now: float) -> tuple[SiteStatus, ...]:
    return hub.core.report(now).sites


def test_idle_sites_are_told_at_once_when_their_worker_has_died(world: World) -> None:
    """They would send nothing for ten seconds; the next worker is given what the last one reported."""
    world.timing = msgspec.structs.replace(world.timing, probe_interval=10.0)
    hub, _ = connected_sites(world, SITES)
    lost = tuple(LostPeer(site.peer, site.local, site.cid) for site in connections(hub, world.net.now))
    hub.alive = False
    assert len(lost) == SITES
    world.net.run(0.07)  # it takes so long to notice and to fork
    hub = world.add_hub(lost=lost)
    assert world.net.nodes[HUB_ADDRESS] is hub
    world.net.run(0.15)
    assert len(connections(hub, world.net.now)) == SITES


def test_busy_sites_need_no_report(world: World) -> None:
    hub, _ = connected_sites(world, SITES)
    hub.alive = False
    world.net.run(0.07)
    hub = world.add_hub()
    world.net.run(world.timing.probe_interval + 0.15)
    assert len(connections(hub, world.net.now)) == SITES


def test_a_reset_of_nobody_is_ignored(world: World) -> None:
    """Without the key, or for a connection ID that is in use no more, it is noise."""
    hub, sites = connected_sites(world, 1)
    (status,) = connections(hub, world.net.now)
    wrong = LostPeer(status.peer, status.local, bytes(8))
    world.net.ports.clear()
    other = World.add_hub(world, ("192.0.2.200", 1), lost=(wrong,))
    world.net.run(0.5)
    assert not [m for m in sites[0].messages if isinstance(m, PeerSilent)]
    assert other.core.report(world.net.now).sites == ()


def test_two_hosts_with_one_certificate_are_damped_and_told_once(world: World) -> None:
    hub = world.add_hub()
    hosts = [world.add_site("ship1", port=46_000 + n) for n in range(2)]
    world.net.run(300.0)
    assert isinstance(hub.core, HubTunnel)
    refusals = hub.core.report(world.net.now).refusals
    assert 6 <= refusals[Refusal.TWIN] <= 20, "a takeover a second would be 300"
    (line,) = [m for m in hub.messages if isinstance(m, Notice) and m.kind == "twin"]
    assert "two hosts with one certificate" in line.text
    for host in hosts:
        assert [m for m in host.messages if isinstance(m, PeerSilent) and "two hosts" in m.reason]


@pytest.mark.parametrize("orderly", [True, False])
def test_a_site_that_comes_again_is_no_twin(world: World, orderly: bool) -> None:
    """Its worker died, or was stopped, and another one is there at once."""
    hub, old = world.add_hub(), world.add_site("ship1", port=46_000)
    world.net.run(1.0)
    if orderly:
        old.core.handle_stop(world.net.now)
        world.net.flush(old)
    old.alive = False
    world.add_site("ship1", port=46_000)
    world.net.run(5.0)
    assert hub.core.report(world.net.now).refusals == {}
    assert len(connections(hub, world.net.now)) == 1
