"""One datagram of a handshake arrives mangled, besides the true one: nothing comes of it."""

from __future__ import annotations

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mpq_worker.contract import Ready
from tests.fuzz.targets import check_books
from tests.sim.conftest import HUB_INNER, World
from tests.sim.network import Node
from tests.sim.packets import number_of, packet


def build() -> tuple[World, Node, Node, Node]:
    """A hub, ship1 that will go bad, and ship2 that stays good."""
    world = World()
    world.entry("ship1", "10.200.11.5")
    world.entry("ship2", "10.200.11.17")
    return world, world.add_hub(), world.add_site(), world.add_site("ship2", ("10.200.11.17",), port=46099)


def still_works(world: World, hub: Node, site: Node, inner: str) -> None:
    hub.delivered.clear()
    world.net.send_packet(site, packet(inner, HUB_INNER, 1))
    world.net.send_packet(hub, packet(HUB_INNER, inner, 2))
    world.net.run(0.1)
    assert [number_of(data) for _, data in hub.delivered] == [1]
    assert number_of(site.delivered[-1][1]) == 2


@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(
    which=st.integers(0, 11),
    flips=st.lists(st.tuples(st.integers(0, 1430), st.integers(1, 255)), max_size=4),
    cut=st.integers(0, 1431),
    late=st.booleans(),
)
@example(which=0, flips=[(1199, 1)], cut=1431, late=False)
def test_handshakes_that_are_tampered_with(which: int, flips: list[tuple[int, int]], cut: int, late: bool) -> None:
    """One datagram of the handshake, either way, arrives mangled too, before or after the true one."""
    world, hub, site, good = build()
    seen = 0
    for node in (hub, site):
        take = node.core.handle_udp

        def tamper(data: bytes, addr: object, now: float, take=take) -> None:  # type: ignore[no-untyped-def]  # `take` is bound here
            nonlocal seen
            mangled = bytearray(data[: max(1, cut)])
            for where, mask in flips:
                mangled[where % len(mangled)] ^= mask
            mine, seen = seen == which, seen + 1
            for piece in (data, bytes(mangled)) if late else (bytes(mangled), data):
                if mine or piece is data:
                    take(piece, addr, now)

        node.core.handle_udp = tamper  # type: ignore[method-assign]  # in its place, for the test
    world.net.run(2.0)
    assert seen > which
    assert Ready() in good.messages
    assert Ready() in site.messages
    check_books(hub.core)
    still_works(world, hub, good, "10.200.11.17")
    still_works(world, hub, site, "10.200.11.5")
