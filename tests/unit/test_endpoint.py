"""What one connection may take of the worker that all of its class share."""

from __future__ import annotations

from mpq_worker.errors import DropReason
from mpq_worker.peer import SLOW, SLOW_OF_STRANGERS
from tests.fuzz import ends
from tests.fuzz.ends import NOW, SITE_ADDRESS
from tests.sim.conftest import HUB_INNER, SITE_INNER
from tests.sim.packets import packet

MAX_DATA = b"\x10\x01"
"""A frame that is not the native loop's."""


def test_a_stranger_has_less_of_it() -> None:
    core, peer = ends.stranger()
    core.poll_transmit(NOW)
    for number in range(SLOW_OF_STRANGERS[1] + 50):
        core.handle_udp(ends.seal(peer.session, "hub", MAX_DATA, number), SITE_ADDRESS, NOW)
    assert core.report(NOW).drops == {DropReason.CONTROL: 50}


def test_what_python_has_to_look_at_has_a_budget_by_connection() -> None:
    core, peer = ends.hub_of_one()
    number = 0

    def hear(payload: bytes, times: int, now: float) -> None:
        nonlocal number
        for _ in range(times):
            core.handle_udp(ends.seal(peer.session, "hub", payload, number), SITE_ADDRESS, now)
            core.poll_transmit(now)
            number += 1

    def dropped() -> dict[str, int]:
        return core.report(NOW).drops

    hear(MAX_DATA, SLOW[1], NOW)
    assert dropped() == {}
    hear(MAX_DATA, 50, NOW)
    assert dropped() == {DropReason.CONTROL: 50}
    hear(b"\x30\x00" + packet(SITE_INNER, HUB_INNER, 7), 3, NOW)
    assert core.report(NOW).packets_in == 3
    hear(MAX_DATA, SLOW[0] + 20, NOW + 1.0)
    assert dropped() == {DropReason.CONTROL: 70}
    peer.held = True  # all its packets come this way now
    core.poll_transmit(NOW + 1.0)
    hear(MAX_DATA, 10, NOW + 1.0)
    assert dropped() == {DropReason.CONTROL: 70}
