"""Planned restarts at both ends, under numbered probes and load: nothing lost, nothing reordered, one reader."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial

import pytest

from mpq_worker.contract import Drained, FromWorker, PeerMoved, Ready, TrafficClass, slot_of
from mpq_worker.errors import Refusal
from mpq_worker.wire import Moved, encode_control
from tests.sim.conftest import HUB_ADDRESS, HUB_INNER, World
from tests.sim.network import Network, Node, Port, Tun
from tests.sim.packets import number_of, packet

SITES = {"ship1": "10.200.11.5", "ship2": "10.200.11.17"}
TALK = 0.001
"""From a worker to the supervisor, or back, in seconds."""
LINGER, GRACE = 1.0, 5.0


class Restart:
    """What the supervisor does: Ready → Drain → Drained → Lead, `PeerMoved` from the old to the new, Stop."""

    def __init__(self, net: Network, old: Node, new: Node, admit: Callable[[], None] = lambda: None) -> None:
        self.net, self.old, self.new, self.admit = net, old, new, admit
        self.led = 0.0
        old.told, new.told = self._from_old, self._from_new
        for message in new.messages:
            self._from_new(message)

    def _from_new(self, message: FromWorker) -> None:
        if isinstance(message, Ready):
            self.admit()
            self._tell(self.old, self.old.core.handle_drain)

    def _from_old(self, message: FromWorker) -> None:
        if isinstance(message, Drained):
            assert message.left == 0
            self.led = self.net.now + 2 * TALK
            self._tell(self.new, self.new.core.handle_lead)
            self.net.at(self.net.now + LINGER, self._stop_old)
        elif isinstance(message, PeerMoved):
            self._tell(self.new, partial(self.new.core.handle_moved, message.inner))

    def _tell(self, node: Node, handle: Callable[[float], None]) -> None:
        def hear() -> None:
            handle(self.net.now)
            self.net.flush(node)

        self.net.at(self.net.now + 2 * TALK, hear)

    def _stop_old(self) -> None:
        self.old.core.handle_stop(self.net.now, GRACE)
        self._end_old()

    def _end_old(self) -> None:
        self.net.flush(self.old)
        self.old.alive = not self.old.core.stopped
        if self.old.alive:
            self.net.at(self.net.now + 0.01, self._end_old)


class Traffic:
    """Numbered packets both ways between the hub's TUN and each site's, for some time."""

    def __init__(self, world: World, hub: Tun, sites: dict[str, Tun], burst: int = 1) -> None:
        """200 small packets per second, or 400 full-sized ones in bursts."""
        self.net, self.hub, self.sites, self.burst = world.net, hub, sites, burst
        self.sent = 0
        for tun in (hub, *sites.values()):
            tun.written.clear()

    def run(self, seconds: float) -> None:
        self.net.every(0.005 if self.burst == 1 else self.burst / 400, self.net.now + seconds, self._send)
        self.net.run(seconds + 0.5)

    def check(self) -> None:
        """All arrived, in the order in which they were sent."""
        everything = list(range(self.sent))
        for name, tun in self.sites.items():
            source = bytes(map(int, SITES[name].split(".")))
            assert [number_of(p) for p in self.hub.written if p[12:16] == source] == everything, f"{name} to hub"
            assert [number_of(p) for p in tun.written] == everything, f"hub to {name}"
        assert not any(tun.dropped for tun in (self.hub, *self.sites.values()))

    def _send(self) -> None:
        size = 100 if self.burst == 1 else 1400
        for _ in range(self.burst):
            for name, tun in self.sites.items():
                self.net.inject(tun, packet(SITES[name], HUB_INNER, self.sent, size))
                self.net.inject(self.hub, packet(HUB_INNER, SITES[name], self.sent, size))
            self.sent += 1


def of(*nodes: Node) -> Tun:
    tun = Tun()
    for node in nodes:
        tun.add(node)
    return tun


@pytest.fixture
def tuns(world: World) -> tuple[Tun, dict[str, Tun]]:
    """A hub and both sites, connected; one TUN each."""
    hub = world.add_hub()
    world.net.ports[HUB_ADDRESS] = Port({slot_of(TrafficClass.BULK, 0): hub}, hub)
    sites = {
        name: of(world.add_site(name, (inner,), port=46000 + i)) for i, (name, inner) in enumerate(SITES.items())
    }
    world.net.run(0.5)
    assert all(Ready() in tun.nodes[0].messages for tun in sites.values())
    return of(hub), sites


def restart_site(world: World, tun: Tun, port: int) -> Restart:
    new = world.add_site("ship1", (SITES["ship1"],), port=port, standby=True)
    tun.add(new)
    return Restart(world.net, tun.nodes[-2], new)


def restart_hub(world: World, tun: Tun, generation: int) -> Restart:
    port = world.net.ports[HUB_ADDRESS]
    new = world.add_hub(generation=generation, standby=True)
    port.slots[slot_of(TrafficClass.BULK, generation)] = new
    tun.add(new)

    def admit() -> None:
        port.door = new

    return Restart(world.net, tun.nodes[-2], new, admit)


# ---------------------------------------------------------------- nothing lost, nothing reordered


@pytest.mark.parametrize("lag", [0.0, 0.03])
@pytest.mark.parametrize("burst", [1, 30])
def test_restarts_of_a_site(world: World, tuns: tuple[Tun, dict[str, Tun]], burst: int, lag: float) -> None:
    """Three in a row; with `lag`, the old process always sees its last packets after the new one sees its first."""
    hub, sites = tuns
    traffic = Traffic(world, hub, sites, burst)
    restarts: list[Restart] = []

    def restart(number: int) -> None:
        restarts.append(restart_site(world, sites["ship1"], 47000 + number))
        restarts[-1].old.lag, restarts[-1].new.lag = lag, 0.0

    for number in range(3):
        world.net.at(world.net.now + 0.3 + 1.503 * number, partial(restart, number))
    traffic.run(4.8)
    traffic.check()
    assert all(restart.led for restart in restarts)
    assert [node.alive for node in sites["ship1"].nodes] == [False] * 3 + [True]
    assert len(hub.nodes[0].core._peers) == len(SITES)


@pytest.mark.parametrize("lag", [0.0, 0.03])
@pytest.mark.parametrize("burst", [1, 30])
def test_restarts_of_a_hub(world: World, tuns: tuple[Tun, dict[str, Tun]], burst: int, lag: float) -> None:
    """Back and forth between the two slots."""
    hub, sites = tuns
    traffic = Traffic(world, hub, sites, burst)
    restarts: list[Restart] = []

    def restart(number: int) -> None:
        restarts.append(restart_hub(world, hub, 1 - number % 2))
        restarts[-1].old.lag, restarts[-1].new.lag = lag, 0.0

    for number in range(3):
        world.net.at(world.net.now + 0.3 + 1.503 * number, partial(restart, number))
    traffic.run(4.8)
    traffic.check()
    assert all(restart.led for restart in restarts)
    assert [node.alive for node in hub.nodes] == [False] * 3 + [True]
    for tun in sites.values():
        (site,) = tun.nodes
        assert len(site.core._peers) == 1
        assert site.core.report(world.net.now).reconnects == 0
        assert [type(m) for m in site.messages if isinstance(m, Ready)] == [Ready]


@pytest.mark.parametrize("restart", [partial(restart_site, port=47000), partial(restart_hub, generation=1)])
def test_a_restart_where_every_process_is_short_of_cpu(
    world: World, tuns: tuple[Tun, dict[str, Tun]], restart: Callable[..., Restart]
) -> None:
    """All see what comes half a second late, so that a handshake takes longer than a first attempt may."""
    hub, sites = tuns
    old = hub.nodes + [node for tun in sites.values() for node in tun.nodes]
    traffic = Traffic(world, hub, sites)
    begun: list[Restart] = []

    def begin() -> None:
        begun.append(restart(world, hub if "generation" in restart.keywords else sites["ship1"]))  # type: ignore[attr-defined]  # a partial
        for node in (*old, begun[0].new):
            node.lag = 0.5

    world.net.at(world.net.now + 0.3, begin)
    traffic.run(8.0)
    world.net.run(2.0)
    traffic.check()
    assert begun[0].led
    assert not begun[0].old.alive
    assert {tun.nodes[-1].core.report(world.net.now).reconnects for tun in sites.values()} == {0}


def test_what_waits_for_the_old_connection_leaves_before_what_follows(
    world: World, tuns: tuple[Tun, dict[str, Tun]]
) -> None:
    """The hub has a burst half sent when the site's new worker takes over."""
    hub, sites = tuns
    traffic = Traffic(world, hub, {"ship1": sites["ship1"]}, burst=45)
    restart = restart_site(world, sites["ship1"], 47000)
    world.net.run(0.03)
    while not restart.led:
        world.net.run(0.001)
    world.net.at(restart.led + 0.0098, traffic._send)
    world.net.at(restart.led + 0.0103, traffic._send)
    world.net.run(1.0)
    traffic.check()


# ---------------------------------------------------------------- what may go wrong


def test_a_site_that_says_again_and_again_that_it_moved_holds_nobody_up(
    world: World, tuns: tuple[Tun, dict[str, Tun]]
) -> None:
    """It is heard once; then it is refused, and the restart goes on for the others."""
    hub, sites = tuns
    (bad,) = sites["ship1"].nodes
    (connection,) = bad.core._peers
    send = connection.session.send_control
    moved = encode_control(Moved())
    connection.session.send_control = lambda data: send(data * 300 if data == moved else data)  # type: ignore[method-assign]  # in its place, for the test
    traffic = Traffic(world, hub, {"ship2": sites["ship2"]})
    restart = restart_hub(world, hub, 1)
    begun = world.net.now
    traffic.run(3.0)
    traffic.check()
    assert 0 < restart.led < begun + 0.5
    told = Counter(m.inner for m in restart.old.messages if isinstance(m, PeerMoved))
    assert told == {(inner,): 1 for inner in SITES.values()}
    assert restart.old.core.report(world.net.now).refusals == {Refusal.MALFORMED: 1}
    assert len(restart.new.core._peers) == len(SITES)


def test_a_site_that_moves_without_being_told_is_refused(world: World, tuns: tuple[Tun, dict[str, Tun]]) -> None:
    hub, sites = tuns
    (bad,) = sites["ship1"].nodes
    (connection,) = bad.core._peers
    connection.session.send_control(encode_control(Moved()))
    bad.core._dirty[connection] = None
    world.net.flush(bad)
    world.net.run(0.1)
    assert hub.nodes[0].core.report(world.net.now).refusals == {Refusal.MALFORMED: 1}
    assert not [m for m in hub.nodes[0].messages if isinstance(m, PeerMoved)]


def test_a_successor_that_dies_and_comes_again_displaces_nobody(
    world: World, tuns: tuple[Tun, dict[str, Tun]]
) -> None:
    """Three that connect on standby, one after the other, and stop or die; then the leader itself goes."""
    hub, sites = tuns
    traffic = Traffic(world, hub, sites)

    def stop(node: Node) -> None:
        node.core.handle_stop(world.net.now)
        world.net.flush(node)
        node.alive = False

    def successor(number: int) -> None:
        node = world.add_site("ship1", (SITES["ship1"],), port=48000 + number, standby=True)
        world.net.at(
            world.net.now + 0.4, partial(setattr, node, "alive", False) if number == 1 else partial(stop, node)
        )

    for number in range(3):
        world.net.at(world.net.now + 0.5 * number, partial(successor, number))
    traffic.run(2.0)
    traffic.check()
    core = hub.nodes[0].core
    assert len(core._peers) == len(SITES)
    stop(sites["ship1"].nodes[0])
    world.net.run(1.0)
    assert len(core._peers) == 1
    last = world.add_site("ship1", (SITES["ship1"],), port=48010, standby=True)
    world.net.run(0.3)
    assert Ready() in last.messages
    world.net.inject(hub, packet(HUB_INNER, SITES["ship1"], 7))  # there is no other, so it is his
    world.net.run(0.5)
    assert [number_of(data) for _, data in last.delivered] == [7]


def test_routes_fall_to_who_stands_by(world: World, tuns: tuple[Tun, dict[str, Tun]]) -> None:
    hub, sites = tuns
    heir = world.add_site("ship1", (SITES["ship1"],), port=48000, standby=True)
    world.net.run(0.5)
    world.net.inject(hub, packet(HUB_INNER, SITES["ship1"], 1))
    world.net.run(0.1)
    assert not heir.delivered
    leader = sites["ship1"].nodes[0]
    leader.core.handle_stop(world.net.now)
    world.net.flush(leader)
    world.net.run(0.1)
    world.net.inject(hub, packet(HUB_INNER, SITES["ship1"], 2))
    world.net.run(0.5)
    assert [number_of(data) for _, data in heir.delivered] == [2]
    assert hub.nodes[0].core.report(world.net.now).drops == {}
