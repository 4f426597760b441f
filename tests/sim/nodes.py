"""What the tests ask of nodes, and have them do."""

from __future__ import annotations

from mpq_worker.peer import Peer
from tests.sim.conftest import World
from tests.sim.network import Node
from tests.sim.packets import number_of, packet


def peer_of(node: Node) -> Peer:
    (peer,) = node.core._peers
    return peer


def peer_at(hub: Node, port: int) -> Peer:
    (peer,) = [peer for peer in hub.core._peers if peer.session.address[1] == port]
    return peer


def drops(world: World, node: Node) -> dict[str, int]:
    return node.core.report(world.net.now).drops


def talk(world: World, node: Node, source: str, destination: str, count: int) -> None:
    """`count` numbered packets, one every 10 ms."""
    for number in range(count):
        data = packet(source, destination, number)
        world.net.at(world.net.now + number / 100, lambda data=data: world.net.send_packet(node, data))  # type: ignore[misc]  # a lambda's default


def numbers(node: Node) -> list[int]:
    return [number_of(data) for _, data in node.delivered]
