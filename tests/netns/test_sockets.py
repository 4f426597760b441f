"""Sockets in a real kernel: `sockets`."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest

from mpq_supervisor.host import Host
from mpq_supervisor.plan import HostPlan
from mpq_supervisor.sockets import Group
from mpq_worker.contract import SINK_SLOT, SLOTS, TrafficClass, door_of, slot_of
from tests.netns.namespace import Namespace, run
from tests.netns.site import Capture, next_packet, received, tunnel, udp_of

pytestmark = pytest.mark.root


@pytest.fixture
def group(hub_namespace: Namespace) -> Iterator[Group]:
    with closing(Group("::", 45010, shared=False)) as group:
        yield group


class Receivers:
    """The sockets of all slots that can have a worker, and somebody who sends to their port."""

    def __init__(self, group: Group, stack: ExitStack) -> None:
        self._sender = stack.enter_context(socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))
        self._sockets = {
            slot: stack.enter_context(socket.socket(fileno=os.dup(group.lend(slot, 0, 0))))
            for slot in range(1, SLOTS)
        }

    def reached_by(self, packet: bytes) -> list[int]:
        """The slots where a packet arrives."""
        self._sender.sendto(packet, ("::1", 45010))
        return [slot for slot, sock in self._sockets.items() if received(sock) == [packet]]


def long_header(kind: int, slot: int) -> bytes:
    """A QUIC v1 packet of a type (0 Initial, 1 0-RTT, 2 Handshake, 3 Retry) to a connection ID of a slot."""
    return bytes([0xC0 | kind << 4, 0, 0, 0, 1, 8, slot]) + bytes(20)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_a_datagram_goes_to_the_slot_in_its_connection_id(group: Group, address: str) -> None:
    """And, if that names a class alone, to the worker of the class that admits; from there on it is in the ID."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with ExitStack() as stack, socket.socket(family, socket.SOCK_DGRAM) as sender:
        sockets = {
            slot: stack.enter_context(socket.socket(fileno=os.dup(group.lend(slot, 0, 0))))
            for slot in range(1, SLOTS)
        }
        doors = {door_of(traffic_class): slot_of(traffic_class, 1) for traffic_class in TrafficClass}
        for slot in doors.values():
            group.admit(slot)
        sunk = 0
        for byte in range(256):
            short = bytes([0x40, byte]) + bytes(20)
            for packet in (short, *(long_header(kind, byte) for kind in range(4))):
                sender.sendto(packet, (address, 45010))
                slot = doors.get(byte, byte)
                if slot in sockets:
                    assert received(sockets[slot]) == [packet]
                else:
                    sunk += 1
        for truncated in (b"", b"\x40", b"\xc0", bytes([0xC0, 0, 0, 0, 1, 8])):
            sender.sendto(truncated, (address, 45010))
            sunk += 1
        assert all(received(sock) == [] for sock in sockets.values())
    assert group.drops(SINK_SLOT) == sunk


def test_a_worker_answers_for_the_one_before_it(group: Group) -> None:
    """The slot of a worker that has gone leads to its class's other one, also while that one does not admit."""
    with ExitStack() as stack:
        receivers = Receivers(group, stack)
        group.keep({1, 4, 5, 6})
        reached = {slot: receivers.reached_by(bytes([0x40, slot]) + bytes(20)) for slot in range(1, SLOTS)}
        assert reached == {1: [1], 2: [1], 3: [4], 4: [4], 5: [5], 6: [6]}


def test_a_port_may_become_shared_and_cease_to_be(group: Group) -> None:
    doors = [door_of(traffic_class) for traffic_class in TrafficClass]
    with ExitStack() as stack:
        receivers = Receivers(group, stack)

        def reached() -> list[list[int]]:
            return [receivers.reached_by(long_header(0, door)) for door in doors]

        assert reached() == [[], [], []]
        for slot in (1, 4, 5):
            group.admit(slot)
        assert reached() == [[1], [4], [5]]
        group.share(shared=True)
        assert reached() == [[], [], []]
        group.admit(2)
        assert reached() == [[2], [2], [2]]
        group.share(shared=False)
        group.admit(6)
        assert reached() == [[], [], [6]]


def test_a_slot_without_a_worker_keeps_nothing(group: Group) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"\x40\x03early", ("127.0.0.1", 45010))
        fd = os.dup(group.lend(3, 0, 0))
        sender.sendto(b"\x40\x03in time", ("127.0.0.1", 45010))
        group.keep(set())
        sender.sendto(b"\x40\x03late", ("127.0.0.1", 45010))
    with socket.socket(fileno=fd) as sock:
        assert received(sock) == [b"\x40\x03in time"]
    assert group.drops(3) == 2


@pytest.mark.parametrize(("address", "shown"), [("127.0.0.7", "::ffff:127.0.0.7"), ("2001:db8::7", "2001:db8::7")])
def test_the_address_that_was_contacted_is_told(group: Group, address: str, shown: str) -> None:
    run("ip address add 2001:db8::7/128 dev lo nodad")
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with (
        socket.socket(family, socket.SOCK_DGRAM) as sender,
        socket.socket(fileno=os.dup(group.lend(1, 46, 6))) as sock,
    ):
        sender.sendto(b"\x40\x01", (address, 45010))
        _data, ancillary, _flags, peer = sock.recvmsg(10, 200)
        ((level, kind, information),) = ancillary
        assert (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO)
        assert socket.inet_ntop(socket.AF_INET6, information[:16]) == shown
        reply = [(socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, information[:16] + bytes(4))]
        sock.sendmsg([b"reply"], reply, 0, peer)
        sender.settimeout(1)
        assert sender.recvfrom(10)[1][:2] == (address, 45010)


def test_outer_packets_leave_by_their_wan_marked_as_their_class(site: Host, plan: HostPlan, capture: Capture) -> None:
    for name, wan in (("cr1", 0), ("cr2", 1)):
        with udp_of(site, plan, name) as sock:
            sock.send(b"outer")
            assert sock.getsockopt(socket.IPPROTO_IP, 10) == 3, "IP_PMTUDISC_PROBE"
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY) == 6
        packet = next_packet(capture.sockets[wan], tunnel(plan, name).source_ports[0])
        assert packet[1] >> 2 == 46
        assert packet[6] & 0x40, "DF"
