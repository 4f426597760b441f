"""Tunnels of a class that are down, end to end: who carries their traffic, and that nobody does in clear."""

from __future__ import annotations

import os
import re
import select
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import NamedTuple

import pytest

from tests.netns.product import System, ok
from tests.netns.test_tunnels import bound, counted
from tools.topology import SERVER, SERVER6, WANS
from tools.traffic import Echo
from tools.wait import pause, until

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

PORT, OTHER_PORT = 5060, 4000
COUNT = 20
LAN_TRAFFIC = f"host {SERVER} or host {SERVER6} or net 172.16.0.0/16 or net 10.200.0.0/16 or net fd00::/8"


class Flow(NamedTuple):
    """A socket of the LAN host, by its LAN of the first WAN, and the server that answers it."""

    sock: socket.socket
    server: str
    port: int

    def send(self, size: int = 1) -> None:
        with suppress(OSError):  # it may be told that nobody takes it
            self.sock.sendto(bytes(size), (self.server, self.port))


@pytest.fixture
def ordered(system: System) -> Iterator[System]:
    """Every WAN with the next ones to fall back to, in a hurry."""
    times = "{ failover_after = 0.3, failback_after = 0.3 }"
    system.edit("site", 'role = "site"\n', f'role = "site"\nwatchdog = {times}\n')
    for n, wan in enumerate(WANS):
        others = [f"wan{WANS[(n + i) % len(WANS)]}" for i in (1, 2)]
        system.edit("site", f'interface = "wan{wan}"\n', f'interface = "wan{wan}"\nfallback = {others}\n')
    ok(system.lab.ctl("site", "reload"))
    yield system
    system.lab.clear_loss()


def test_traffic_of_a_class_follows_the_order_and_then_is_refused(ordered: System) -> None:
    """Packets vanish in the middle of the network. What a flow was classified as, it remains."""
    lab = ordered.lab
    with ExitStack() as stack:
        stack.callback(Echo(lab, "server", [PORT, OTHER_PORT]).stop)
        old = [_flow(stack, ordered, "172.16.1.9", SERVER), _flow(stack, ordered, "fd00:16:1::9", SERVER6)]
        assert _carrier(ordered, old) == "cr1"
        for lost, carrier in (("cr1", "cr2"), ("cr2", "cr3")):
            _lose(ordered, lost)
            assert _carrier(ordered, old) == carrier, "the same flows, by the next tunnel"
        ordered.edit("site", 'ports = [5060, "10000-20000"]', 'ports = ["10000-20000"]')
        ok(lab.ctl("site", "reload"))
        assert _carrier(ordered, old) == "cr3", "an open flow keeps its class"
        new = [_flow(stack, ordered, "172.16.1.9", SERVER, OTHER_PORT)]
        assert _carrier(ordered, new) == "br1", "its class has not lost its tunnels"

        _lose(ordered, "cr3")
        before = _refused(ordered)
        captures = [stack.enter_context(lab.capture("router", f"r{k}", LAN_TRAFFIC)) for k in WANS]
        with counted(ordered) as sent:
            for _ in range(COUNT):
                for flow in old:
                    flow.send()
            until(lambda: _refused(ordered) == before + COUNT * len(old))
            pause(0.1)
        assert all(packets[1] < COUNT for packets in sent.values()), sent
        assert [capture.stop() for capture in captures] == [0, 0, 0]
        assert (lab.leaks().site, lab.leaks().hub) == (0, 0)

        lab.clear_loss()
        for flow in old:
            until(lambda: _is_answered(flow))  # noqa: B023 - used up at once


# ---------------------------------------------------------------- helpers


def _flow(stack: ExitStack, system: System, host: str, server: str, port: int = PORT) -> Flow:
    return Flow(stack.enter_context(bound(system, "lan", host)), server, port)


def _lose(system: System, tunnel: str) -> None:
    begin = len(system.log("site"))
    system.lab.drop_all(system.deployment.flow(tunnel))
    until(lambda: f"{tunnel}: its traffic goes by others or is refused" in system.log("site")[begin:])


def _carrier(system: System, flows: list[Flow]) -> str:
    """The one tunnel that carries packets of these flows, both ways, once they are answered."""
    for flow in flows:
        until(lambda: _is_answered(flow))  # noqa: B023 - used up at once
    with counted(system) as sent:
        for flow in flows:
            _drain(flow.sock)
            for size in range(COUNT):  # of another size than the last, so that no two become one super-packet
                flow.send(50 + size)
            assert _drain(flow.sock, COUNT) == COUNT, flow
    carriers = [tun for tun, packets in sent.items() if min(packets) >= COUNT * len(flows)]
    assert len(carriers) == 1, sent
    assert all(max(packets) < COUNT for tun, packets in sent.items() if tun not in carriers), sent
    return carriers[0]


def _is_answered(flow: Flow) -> bool:
    flow.send()
    return _drain(flow.sock, 1) > 0


def _drain(sock: socket.socket, wanted: int = 0) -> int:
    """Takes what has come, and waits for as many as wanted; returns how many."""
    count = 0
    while select.select([sock], [], [], 0.2 if count < wanted else 0)[0]:
        sock.recv(100)
        count += 1
    return count


def _refused(system: System) -> int:
    listing = system.lab.run("site", ["nft", "list", "counter", "inet", "mpq", "refused_critical"]).stdout
    found = re.search(r"packets (\d+)", listing)
    assert found
    return int(found[1])
