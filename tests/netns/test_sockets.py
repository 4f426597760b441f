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
from mpq_worker.contract import SINK_SLOT, SLOTS
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
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with ExitStack() as stack, socket.socket(family, socket.SOCK_DGRAM) as sender:
        sockets = {
            slot: stack.enter_context(socket.socket(fileno=os.dup(group.lend(slot, 0, 0))))
            for slot in range(1, SLOTS)
        }
        sunk = 0
        for slot in range(256):
            short = bytes([0x40, slot]) + bytes(20)
            long = bytes([0xC0, 0, 0, 0, 1, 8, slot]) + bytes(20)
            for packet in (short, long):
                sender.sendto(packet, (address, 45010))
                if slot in sockets:
                    assert received(sockets[slot]) == [packet]
                else:
                    sunk += 1
        for truncated in (b"", b"\x40", b"\xc0", bytes([0xC0, 0, 0, 0, 1, 8])):
            sender.sendto(truncated, (address, 45010))
            sunk += 1
        assert all(received(sock) == [] for sock in sockets.values())
    assert group.drops(SINK_SLOT) == sunk


def test_a_shared_listener_gets_the_first_packets_of_every_class(hub_namespace: Namespace) -> None:
    with closing(Group("::", 45010, shared=True)) as group, ExitStack() as stack:
        receivers = Receivers(group, stack)
        for slot in range(1, SLOTS):
            assert [receivers.reached_by(long_header(kind, slot)) for kind in range(4)] == [[1], [1], [slot], [slot]]
            assert receivers.reached_by(bytes([0x40, slot]) + bytes(20)) == [slot]
        for slot in (0, SLOTS, 255):
            assert [receivers.reached_by(long_header(kind, slot)) for kind in range(4)] == [[]] * 4
        for truncated in (b"", b"\xc0", bytes([0xC0, 0, 0, 0, 1, 8])):
            assert receivers.reached_by(truncated) == []
        assert group.drops(SINK_SLOT) == 3 * 4 + 3


def test_a_port_may_become_shared_and_cease_to_be(group: Group) -> None:
    with ExitStack() as stack:
        receivers, initial = Receivers(group, stack), long_header(0, 5)
        assert receivers.reached_by(initial) == [5]
        group.steer(shared=True)
        assert receivers.reached_by(initial) == [1]
        group.steer(shared=False)
        assert receivers.reached_by(initial) == [5]


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
        packet = next_packet(capture.sockets[wan], tunnel(plan, name).source_port)
        assert packet[1] >> 2 == 46
        assert packet[6] & 0x40, "DF"
