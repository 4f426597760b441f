"""The channel: messages, descriptors, a full buffer, the end, and whatever is not a message."""

from __future__ import annotations

import array
import fcntl
import os
import socket
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mpq_worker.channel import Channel, ChannelClosed, ChannelFault, pair
from mpq_worker.contract import (
    MAX_FDS,
    MAX_MESSAGE,
    Fork,
    FromWorker,
    Heartbeat,
    Notice,
    Rebind,
    SetSites,
    Signature,
    SiteEntry,
    Stop,
    ToWorker,
    ToZygote,
)

Ends = tuple[Channel[FromWorker], Channel[ToWorker]]


@pytest.fixture
def ends() -> Iterator[Ends]:
    ours, theirs = pair()
    supervisor, worker = Channel[FromWorker](ours, FromWorker), Channel[ToWorker](theirs, ToWorker)
    yield supervisor, worker
    supervisor.close()
    worker.close()


@pytest.fixture
def raw() -> Iterator[tuple[socket.socket, Channel[ToWorker]]]:
    ours, theirs = pair()
    worker = Channel[ToWorker](theirs, ToWorker)
    yield ours, worker
    ours.close()
    worker.close()


def open_descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def send_raw(sock: socket.socket, data: bytes, fds: list[int]) -> None:
    sock.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else [])


def test_messages_arrive_in_order_one_by_one(ends: Ends) -> None:
    supervisor, worker = ends
    assert worker.receive() is None
    supervisor.send(Stop(2.0))
    supervisor.send(Stop(3.0))
    assert worker.receive() == (Stop(2.0), [])
    assert worker.receive() == (Stop(3.0), [])
    assert worker.receive() is None


def test_both_directions_have_their_own_union(ends: Ends) -> None:
    supervisor, worker = ends
    worker.send(Heartbeat(1, 2))
    assert supervisor.receive() == (Heartbeat(1, 2), [])
    supervisor.send(Heartbeat(1, 2))
    with pytest.raises(ChannelFault):
        worker.receive()


def test_descriptors_travel_close_on_exec(ends: Ends) -> None:
    supervisor, worker = ends
    read, write = os.pipe()
    supervisor.send(Rebind(("192.0.2.1", 1)), [write])
    os.close(write)
    received = worker.receive()
    assert received is not None
    (fd,) = received[1]
    assert fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    os.write(fd, b"x")
    assert os.read(read, 1) == b"x"
    os.close(fd)
    os.close(read)


@pytest.mark.parametrize("count", [0, 2, MAX_FDS, MAX_FDS + 3])
def test_wrong_number_of_descriptors_is_a_fault_and_leaks_none(ends: Ends, count: int) -> None:
    supervisor, worker = ends
    before = open_descriptors()
    supervisor.send(Rebind(("192.0.2.1", 1)), [0] * count)
    with pytest.raises(ChannelFault):
        worker.receive()
    assert open_descriptors() == before


def test_unexpected_descriptors_are_closed(raw: tuple[socket.socket, Channel[ToWorker]]) -> None:
    sock, worker = raw
    before = open_descriptors()
    send_raw(sock, b"\x93garbage", [0, 0])
    with pytest.raises(ChannelFault):
        worker.receive()
    assert open_descriptors() == before


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(data=st.binary(min_size=1, max_size=200))
def test_garbage_is_a_message_or_a_fault(raw: tuple[socket.socket, Channel[ToWorker]], data: bytes) -> None:
    sock, worker = raw
    send_raw(sock, data, [])
    try:
        assert worker.receive() is not None
    except ChannelFault:
        assert worker.receive() is None


def test_oversized_packet_is_a_fault(raw: tuple[socket.socket, Channel[ToWorker]]) -> None:
    sock, worker = raw
    send_raw(sock, b"\xc0" * (MAX_MESSAGE + 1), [])
    with pytest.raises(ChannelFault, match="truncated"):
        worker.receive()


def test_largest_message_fits(ends: Ends) -> None:
    supervisor, worker = ends
    entry = SiteEntry("s", "mpq://site/s", ("10.0.0.1",))
    sites = SetSites(tuple([entry] * 2000))
    assert supervisor.send(sites)
    assert worker.receive() == (sites, [])
    with pytest.raises(ChannelFault, match="SetSites of"):
        supervisor.send(SetSites(tuple([entry] * 20_000)))


def test_beside_the_largest_message_there_is_room_for_others(ends: Ends) -> None:
    """Such as the signatures that a hub's worker has asked for before it read of its sites."""
    supervisor, worker = ends
    sites = SetSites((SiteEntry("s" * (MAX_MESSAGE - 100), "", ()),))
    others = [Signature(number, bytes(72)) for number in range(200)]
    assert all(supervisor.send(message) for message in (sites, *others))
    assert [worker.receive() for _ in range(201)] == [(message, []) for message in (sites, *others)]


def test_full_buffer_never_blocks_and_is_counted(ends: Ends) -> None:
    supervisor, worker = ends
    sent = 0
    while worker.send(Notice("n", "x" * 1000)):
        sent += 1
        assert sent < 10_000
    assert worker.dropped == 1
    assert not worker.send(Heartbeat(1, 1))
    received = 0
    while supervisor.receive() is not None:
        received += 1
    assert received == sent
    assert worker.send(Heartbeat(2, 2))


def test_end_is_told_after_what_was_sent(ends: Ends) -> None:
    supervisor, worker = ends
    supervisor.send(Stop())
    supervisor.close()
    assert worker.receive() == (Stop(), [])
    with pytest.raises(ChannelClosed):
        worker.receive()
    with pytest.raises(ChannelClosed):
        worker.send(Heartbeat(1, 1))


def test_message_of_another_channel_is_refused() -> None:
    ours, theirs = pair()
    zygote = Channel[ToZygote](theirs, ToZygote)
    with ours:
        Channel[FromWorker](ours, FromWorker).send(Fork(1, "cr1", 0, 0))
        with pytest.raises(ChannelFault, match="descriptors"):
            zygote.receive()
    zygote.close()
